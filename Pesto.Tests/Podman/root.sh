#!/bin/bash
# Usage: root.sh FOLDER SOURCE
#
# Makes FOLDER a Debian root with rootless Podman for the tests that use the real one; SOURCE is a file that names the mirror, as apt
# has them. Podman comes from experimental and the rest from sid: the crun of Debian 12 starts nothing where control groups are
# mounted in the hybrid way. enter.sh runs commands in it.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# Has to change when a root that an older version of this file made is of no use any more.
version=1

newest=(podman netavark)
others=(passt crun uidmap iproute2 busybox-static nftables aardvark-dns curl procps)

say() { printf 'peers: %s\n' "$*"; }
fail() { printf 'build.sh: peers: no Podman to test with: %s\n' "$*" >&2; exit 1; }

here=$(dirname "$(readlink -f "$0")")
to=$1 source=$2

if [ "$(cat "$to/.version" 2>/dev/null)" = "$version" ]; then
  say "$(cat "$to/.contents") in $to"
  exit
fi

[ "$(id -u)" = 0 ] || fail "only root can make its root. As root: ./build.sh peers podman"
for command in debootstrap:debootstrap unshare:util-linux setpriv:util-linux; do
  command -v "${command%:*}" >/dev/null || fail "not found: ${command%:*}. On Debian, as root: apt-get install ${command#*:}"
done
# What is mounted on the way goes with this.
[ "${private:-}" = yes ] || private=yes exec unshare --mount "$0" "$@"

# Everything happens in a folder of its own, which takes the place of the old one only when it works.
work=$to.new log=$to.log
rm -rf --one-file-system "$work" "$work.images"
mkdir -p "$work"
mirror=$(sed -nE '/^#/d; s,^(.* )?((https?|file):/[^ ]*).*,\2,p' "$source" | head -1) && [ -n "$mirror" ] || fail "debootstrap can't use the mirror that $source names"

make() {
  debootstrap --variant=minbase sid "$work" "$mirror"

  # The suite's index has expired on a mirror that keeps an old state; what it says is signed all the same.
  cat >"$work/etc/apt/apt.conf.d/tests" <<END
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
END
  printf 'deb %s %s main\n' "$mirror" sid "$mirror" experimental >"$work/etc/apt/sources.list"
  printf 'force-unsafe-io\npath-exclude=/usr/share/%s/*\n' doc man locale >"$work/etc/dpkg/dpkg.cfg.d/tests"
  # Services that come with packages are not to run.
  printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
  chmod +x "$work/usr/sbin/policy-rc.d"
  mount -t proc proc "$work/proc"
  local apt=(chroot "$work" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q)
  "${apt[@]}" update
  "${apt[@]}" install -y -t experimental "${newest[@]}"
  "${apt[@]}" install -y "${others[@]}"
  "${apt[@]}" clean
  rm -rf "$work"/var/lib/apt/lists/*

  # An ordinary user, with ids of others for what is in his containers to be divided among.
  chroot "$work" useradd --uid 1000 --no-create-home --home-dir /home/user --shell /bin/sh user
  echo user:100000:65536 | tee "$work/etc/subuid" >"$work/etc/subgid"
  cat >"$work/usr/local/bin/as-user" <<'END'
#!/bin/sh
# Runs a command, which assignments to environment variables may precede, as an ordinary user who has just logged in.
cd /home/user
exec setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all env -i \
  HOME=/home/user USER=user LC_ALL=C PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin XDG_RUNTIME_DIR=/run/user/1000 "$@"
END
  chmod +x "$work/usr/local/bin/as-user"

  # There is no systemd to make control groups and keep a journal.
  mkdir -p "$work/etc/containers"
  cat >"$work/etc/containers/containers.conf" <<'END'
[containers]
cgroups="disabled"
log_driver="k8s-file"
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
END
  printf '[storage]\ndriver="vfs"\n[storage.options]\nadditionalimagestores=["/images"]\n' >"$work/etc/containers/storage.conf"
  echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/etc/containers/policy.json"

  # The one image: busybox. It is in a store of its own, which every test reads and none writes.
  mkdir -p "$work"/{test,images,image} "$work.images"
  mkdir "$work"/image/{bin,dev,etc,proc,root,sys,tmp}
  cp "$work/bin/busybox" "$work/image/bin"
  local name
  for name in $(chroot "$work" busybox --list); do
    [ "$name" = busybox ] || ln -s busybox "$work/image/bin/$name"
  done
  echo root:x:0:0:root:/root:/bin/sh >"$work/image/etc/passwd"
  tar -C "$work/image" -cf "$work/image.tar" .
  rm -r "$work/image"
  chown 1000:1000 "$work.images"
  "$here/enter.sh" "$work" --bind "$work.images" /images as-user podman --root /images --storage-driver vfs import /image.tar busybox
  rm "$work/image.tar"
  rmdir "$work/images"
  mv "$work.images" "$work/images"

  # It is of use only if a container of an ordinary user's runs in it.
  "$here/enter.sh" "$work" as-user podman run --rm --network none busybox echo "a container ran" | tee "$work/said"
  grep -qx "a container ran" "$work/said"
  rm "$work/said"
  umount "$work/proc"
  chroot "$work" dpkg-query -W -f '${Package} ${Version}, ' podman netavark crun passt | sed 's/, $//' >"$work/.contents"
  echo "$version" >"$work/.version"
}

say "making a root with Podman of Debian's suites sid and experimental; this takes a few minutes"
# In a shell of its own, since "set -e" has no effect in what a condition calls.
set +e
(set -e; make) </dev/null >"$log" 2>&1
status=$?
set -e
if [ $status != 0 ]; then
  tail -n 5 "$log" >&2
  fail "see all of $log"
fi
rm -rf --one-file-system "$to"
mv "$work" "$to"
rm -f "$log"
say "$(cat "$to/.contents") in $to"

#!/bin/bash
# Usage: enter.sh ROOT [--bind FOLDER PLACE]... COMMAND...
#
# Runs a command as root in ROOT, which is not changed: what the system writes to is memory that goes with the command. Whatever it
# leaves running goes with it, too, since it is the first process of a process namespace. The network is the caller's. Not a
# chroot: in one, the kernel gives nobody user namespaces.
set -eu
root=$1
shift

if [ "${entered:-}" != "$root" ]; then
  entered=$root exec unshare --mount --pid --fork --kill-child "$0" "$root" "$@"
fi
unset entered

mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
for place in run tmp var/tmp home; do
  mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
install -d -m 755 -o user -g user "$root/home/user" 2>/dev/null || install -d -m 755 -o 1000 -g 1000 "$root/home/user"

# Devices of its own, since /dev/net/tun is to be anybody's in here, whatever it is outside.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name type major minor; do
  mkdir -p "$root/dev/$(dirname "$name")"
  mknod -m 666 "$root/dev/$name" "$type" "$major" "$minor"
done <<END
null c 1 3
zero c 1 5
full c 1 7
random c 1 8
urandom c 1 9
tty c 5 0
net/tun c 10 200
END
mkdir "$root"/dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

install -d -m 700 -o 1000 -g 1000 "$root/run/user/1000"
while [ "${1:-}" = --bind ]; do
  mount --bind "$2" "$root$3"
  shift 3
done

cd "$root"
pivot_root . .
umount -l .
mount --make-rshared / # as systemd has it; Podman says so otherwise
cd /
exec "$@"

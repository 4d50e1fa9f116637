#!/bin/bash
# Builds, tests and shows Pesto. Every verb checks what it needs before it starts. See ./build.sh --help.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cd "$here"
PATH=$PATH:/usr/sbin:/sbin # not in an ordinary user's PATH on Debian

usage() {
  cat <<'END'
Usage: ./build.sh [VERB] [ARGUMENT...]

  build        out/pesto: one native program that needs libc and nothing else (the default)
  static       out/pesto-static: the same, which needs nothing at all, for images with an old libc or none
  test [...]   builds and runs every test; arguments go to `dotnet test`, such as --filter Name~Interop
  skips        runs the tests that need programs that not every machine has as if these were not there: all are skipped
  soak MINUTES streams, connections, datagrams, changing tables and clients that break off, all at once, for so long
  demo         forwards ports into a little container and changes them while a client connects
  bench [...]  runs the benchmarks; arguments go to them, `./build.sh bench --help` lists them
  peers [all]  fetches Debian's newest passt, pasta and pesto into .cache/peers, to test and compare with;
               with `all`, also installs the programs that tests and benchmarks forward (needs root)
  peers podman makes a Debian root with rootless Podman in .cache/podman, to test with (needs root)
  needs        prints the Debian packages that building, testing and the demo need
  clean [all]  removes what building made; with `all`, also .cache

An ordinary user can run every verb but `peers all` and `peers podman`.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

# ---- What a verb needs ----------------------------------------------------------------------------------------------

# What programs there are, how they get on a machine, and the Debian packages that have them.
table() { sed '/^#/d; /^ *$/d' Pesto.Tests/programs.txt; }

# packages_for WHEN...: the packages of all programs that get on a machine in one of these ways, as the table has it.
packages_for() { table | awk -v when=" $* " 'index(when, " " $1 " ") { for (i = 3; i <= NF; i++) if (!seen[$i]++) print $i }'; }

# need PROGRAM...: notes the Debian packages of programs that are not there; need_all_met reports them together.
missing=() packages=()
need() {
  local program
  for program; do
    command -v "$program" >/dev/null && continue
    missing+=("$program")
    packages+=($(table | awk -v program="$program" '$2 == program { for (i = 3; i <= NF; i++) print $i }'))
  done
}

need_all_met() {
  [ ${#missing[@]} = 0 ] && return
  say "build.sh: not found: ${missing[*]}. On Debian, as root: apt-get install $(printf '%s\n' "${packages[@]}" | sort -u | tr '\n' ' ')" >&2
  exit 1
}

need_dotnet() {
  local major
  major=$(sed -n 's/.*"version": *"\([0-9]*\)\..*/\1/p' global.json)
  command -v dotnet >/dev/null || fail "the .NET SDK $major is not here (no \`dotnet\` in PATH).
  On Debian, as root, with Microsoft's package feed set up: apt-get install dotnet-sdk-$major.0"
  dotnet --list-sdks | grep -q "^$major\." || fail "this needs the .NET SDK $major; \`dotnet --list-sdks\` has: $(dotnet --list-sdks | cut -d' ' -f1 | tr '\n' ' ')
  On Debian, as root, with Microsoft's package feed set up: apt-get install dotnet-sdk-$major.0"
  export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
}

# Native AOT needs a C compiler as its linker, the C library's start files, and objcopy to strip.
need_linker() {
  need objcopy
  linker=gcc
  command -v gcc >/dev/null || linker=clang
  command -v $linker >/dev/null || need gcc
  need_all_met
  case $($linker -print-file-name=crt1.o) in
    /*) ;;
    *) missing+=("the C library's crt1.o") packages+=(libc6-dev); need_all_met ;;
  esac
}

rid() {
  case $(uname -m) in
    x86_64) echo linux-x64 ;;
    aarch64) echo linux-arm64 ;;
    armv7l) echo linux-arm ;;
    riscv64) echo linux-riscv64 ;;
    *) fail "no Native AOT for $(uname -m)" ;;
  esac
}

# ---- Building -------------------------------------------------------------------------------------------------------

# publish FOLDER PROPERTY...: compiles the native program into Pesto/obj/FOLDER. MSBuild skips what has not changed.
publish() {
  local to=Pesto/obj/$1
  quietly dotnet publish Pesto/Pesto.csproj -c Release -r "$(rid)" --self-contained -o "$to" --nologo -v quiet -p:PestoLinker=$linker "${@:2}"
}

# quietly COMMAND...: shows what a command says only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1) || { say "$said" >&2; exit 1; }
}

# install_binary FROM TO: replaces the binary in one step, so that one that is running is not disturbed.
install_binary() {
  mkdir -p out
  cp "$1" "$2.new"
  mv -f "$2.new" "$2"
}

build() {
  need_dotnet
  need_linker
  publish publish
  install_binary Pesto/obj/publish/pesto out/pesto
  local size others
  size=$(stat -c %s out/pesto)
  [ "$size" -lt 3000000 ] || fail "out/pesto has grown to $size bytes; it is to stay under 3 MB"
  others=$({ ldd out/pesto || true; } | awk '{print $1}' | grep -Ev '^(linux-(vdso|gate)|libc\.so|libm\.so|.*/ld-linux|libdl\.so|libpthread\.so|librt\.so)' || true)
  [ -z "$others" ] || fail "out/pesto needs more than the C library: $others"
  say "out/pesto: $size bytes"
}

build_static() {
  need_dotnet
  need_linker
  # Folders of its own, so that the two ways to link do not take each other's output for up to date. The linker's warning about dlopen
  # is about a path of the runtime that Pesto never takes (it loads no library).
  publish publish-static -p:PestoStatic=true -p:IntermediateOutputPath=obj/static/ -p:OutputPath=bin/static/
  install_binary Pesto/obj/publish-static/pesto out/pesto-static
  case $(ldd out/pesto-static 2>&1 || true) in
    *'not a dynamic executable'* | *'statically linked'*) ;;
    *) fail "out/pesto-static is not static" ;;
  esac
  say "out/pesto-static: $(stat -c %s out/pesto-static) bytes"
}

# The program with checks of what has to hold in it: some tests run it instead.
build_checked() {
  publish publish-checked -p:PestoChecks=true
  install_binary Pesto/obj/publish-checked/pesto out/pesto-checked
}

# ---- Testing --------------------------------------------------------------------------------------------------------

# As root, runs a command as it is. An ordinary user gets a user namespace in which he is root and may make network
# namespaces as the tests do; /run is his own there, since that is where `ip netns` keeps them.
with_namespaces() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    unshare -Urnm true 2>/dev/null || fail "this kernel lets an ordinary user make no namespaces (unshare -Urnm): run this as root"
    unshare -Urnm sh -c 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"' sh "$@"
  fi
}

# Why tests were skipped, each reason once with how many say so; it names the command that would enable them.
skip_reasons() {
  tr -d '\r\n' <"$1" | sed 's/<UnitTestResult /\n&/g' | grep 'outcome="NotExecuted"' |
    sed 's/.*<Message>\([^<]*\)<.*/\1/' | sort | uniq -c | sed 's/^ */skipped: /' || true
}

# run_tests [ARGUMENT...]: builds and runs tests; leaves in `counted` what became of them, as the test runner wrote it down.
run_tests() {
  need $(table | awk '$1 == "always" || $1 == "built" { print $2 }')
  need_all_met
  build
  # It takes as long again: not for a few tests whose names say that they don't need it.
  rm -f out/pesto-checked
  [[ "$*" == *--filter* && ! "$*" =~ Control|Model|Faults|FaultMatrix|Soak|Check ]] || build_checked
  quietly dotnet build Pesto.Tests/Pesto.Tests.csproj -c Release --nologo -v quiet
  local results=Pesto.Tests/obj/results status=0
  rm -rf "$results"
  with_namespaces dotnet test Pesto.Tests/Pesto.Tests.csproj -c Release --no-build --nologo \
    --logger "trx;LogFileName=tests.trx" --results-directory "$results" "$@" || status=$?
  local counters total executed passed failed
  counters=$(grep -o '<Counters [^>]*>' "$results/tests.trx" 2>/dev/null) || fail "no test ran"
  count() { sed "s/.* $1=\"\([0-9]*\)\".*/\1/" <<<"$counters"; }
  total=$(count total) executed=$(count executed) passed=$(count passed)
  failed=$((executed - passed))
  [ "$total" != 0 ] || fail "no test ran"
  [ $status = 0 ] || [ $failed != 0 ] || say "build.sh: the test run broke off (status $status)" >&2
  skip_reasons "$results/tests.trx"
  counted="$passed passed, $failed failed, $((total - executed)) skipped"
  return $status
}

# Ends in one line that says it all.
test_all() {
  local status=0
  run_tests "$@" || status=$?
  say "$counted"
  return $status
}

# What somebody sees who has none of the programs that not every machine has: no test fails for want of one, each says that it is skipped.
skips() {
  local status=0
  PESTO_HIDE_PROGRAMS=1 run_tests --filter Needs=programs || status=$?
  say "Without the programs that not every machine has: $counted"
  case $counted in
    '0 passed, 0 failed, '*) return $status ;;
    *) fail "a test that needs such a program was not skipped without it" ;;
  esac
}

soak() {
  [[ ${1:-} =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "soak: how many MINUTES?"
  PESTO_SOAK=$1 test_all --filter FullyQualifiedName~SoakTests --logger "console;verbosity=detailed"
}

# ---- Showing and measuring ------------------------------------------------------------------------------------------

demo() {
  need ip nsenter perl
  need_all_met
  build
  say
  exec Pesto.Bench/Demo/demo.sh "$@"
}

bench() {
  need ip nsenter
  need_all_met
  build
  quietly dotnet build Pesto.Bench/Pesto.Bench.csproj -c Release --nologo -v quiet
  exec dotnet Pesto.Bench/bin/Release/net*/Pesto.Bench.dll "$@"
}

# ---- Peers ----------------------------------------------------------------------------------------------------------

# Prints a source list for Debian's suite sid that uses the same mirror and key as the machine's own.
sid_source() {
  local file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] || continue
    # A stanza is paragraphs of fields; keep the first that is Debian's main archive, with its suites replaced.
    awk -v RS= -v codename="$1" '
      /(^|\n)Enabled: *no/ || !/(^|\n)Types:([^\n]* )?deb( |\n|$)/ { next }
      {
        count = split($0, line, "\n"); out = ""; ours = 0; skipping = 0
        for (i = 1; i <= count; i++) {
          if (line[i] ~ /^#/) continue
          if (line[i] !~ /^[ \t]/) skipping = line[i] ~ /^(Types|Suites|Components):/
          if (line[i] ~ /^Suites:/ && line[i] " " ~ "[ :](" codename "|stable|testing|unstable|sid) ") ours = 1
          if (!skipping) out = out line[i] "\n"
        }
        if (ours) { printf "Types: deb\nSuites: sid\nComponents: main\n%s", out; exit }
      }' "$file" >"$2.sources"
    [ -s "$2.sources" ] && { say "$2.sources"; return; }
    rm -f "$2.sources"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$file" ] || continue
    awk -v codename="$1" '
      $1 == "deb" {
        suite = 0
        for (i = 3; i <= NF && !suite; i++) if ($(i) ~ "^(" codename "|stable|testing|unstable|sid)$") suite = i
        if (!suite) next
        for (i = 1; i < suite; i++) printf "%s ", $(i)
        print "sid main"; exit
      }' "$file" >"$2.list"
    [ -s "$2.list" ] && { say "$2.list"; return; }
    rm -f "$2.list"
  done
  return 1
}

# Debian's newest passt wants a newer libc than a stable Debian has: both are unpacked beside each other, and nothing is
# installed. No root needed.
fetch_passt() {
  local to=$here/.cache/peers
  if [ -x "$to/bin/pasta" ] && "$to/bin/pasta" --version >/dev/null 2>&1; then
    say "peers: $("$to/bin/pasta" --version 2>/dev/null | head -1) in .cache/peers"
    return
  fi

  local why="peers: no passt for comparison"
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "$why: this is no Debian (apt-get and dpkg are not here)"
  local ID='' VERSION_CODENAME=''
  . /etc/os-release
  [ "$ID" = debian ] || fail "$why: only Debian's own mirrors have it, and this is ${PRETTY_NAME:-$ID}"

  # Everything happens in a folder of its own, which takes the place of the old one only when it works.
  local work=$to.new source
  rm -rf "$work"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root" "$work/bin"
  source=$(sid_source "${VERSION_CODENAME:-stable}" "$work/sid") || fail "$why: found no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d"
  local apt=(apt-get -q -o Dir::Etc::SourceList="$source" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
    -o Dir::Cache="$work/cache" -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root)
  say "peers: fetching passt and libc6 of Debian's suite sid"
  "${apt[@]}" update >"$work/log" 2>&1 && (cd "$work/debs" && "${apt[@]}" download passt libc6) >>"$work/log" 2>&1 || {
    grep -E '^(E|W|Err)' "$work/log" >&2
    fail "$why: apt-get could not get it (log: $work/log)"
  }
  local deb
  for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$work/root"
  done
  rm -rf "$work/lists" "$work/cache" "$work/debs"

  local loader name program
  loader=$(cd "$work/root" && find usr -name 'ld-linux*.so.*' | head -1)
  [ -n "$loader" ] || fail "$why: the libc6 package has no loader"
  for name in passt pasta pesto; do
    [ -e "$work/root/usr/bin/$name" ] || fail "$why: $name is not in the package"
    # The build for processors with AVX2, which passt would change to by itself if it were started without a loader.
    program=$name
    [ ! -e "$work/root/usr/bin/$name.avx2" ] || ! grep -qw avx2 /proc/cpuinfo || program=$name.avx2
    cat >"$work/bin/$name" <<END
#!/bin/sh
# Debian's $name with the libc that it was made for.
root=\$(dirname "\$(readlink -f "\$0")")/../root
exec "\$root/$loader" --library-path "\$root/$(dirname "$loader")" --argv0 $name "\$root/usr/bin/$program" "\$@"
END
    chmod +x "$work/bin/$name"
  done
  "$work/bin/pasta" --version >"$work/log" 2>&1 || fail "$why: it does not run here: $(head -1 "$work/log")"
  rm -rf "$to"
  mv "$work" "$to"
  say "peers: $("$to/bin/pasta" --version 2>/dev/null | head -1) in .cache/peers"
}

# Services that come with these packages are not to run: tests and benchmarks start their own.
install_peers() {
  local wanted=() package
  for package in $(packages_for peers bench); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || wanted+=("$package")
  done
  if [ ${#wanted[@]} = 0 ]; then
    say "peers: installed: $(packages_for peers bench | tr '\n' ' ')"
    return
  fi
  [ "$(id -u)" = 0 ] || fail "peers: not installed: ${wanted[*]}. As root: ./build.sh peers all"
  local policy=/usr/sbin/policy-rc.d ours='' status=0
  if [ ! -e $policy ]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${wanted[@]}" </dev/null || status=$?
  [ -z "$ours" ] || rm -f $policy
  [ $status = 0 ] || fail "peers: apt-get install failed; an \`apt-get update\` may help"
  if [ -d /run/systemd/system ]; then
    for package in redis-server nginx haproxy iperf3; do
      case " ${wanted[*]} " in *" $package"*) systemctl disable --quiet $package 2>/dev/null || true ;; esac
    done
  fi
}

make_podman_root() {
  local VERSION_CODENAME='' source
  . /etc/os-release
  mkdir -p .cache
  source=$(sid_source "${VERSION_CODENAME:-stable}" .cache/sid) || fail "peers: found no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d"
  Pesto.Tests/Podman/root.sh .cache/podman "$source"
  rm "$source"
}

peers() {
  case "${1:-}" in
    '') fetch_passt ;;
    all) install_peers && fetch_passt ;;
    podman) make_podman_root ;;
    *) fail "peers: what is '$1'?" ;;
  esac
}

clean() {
  rm -rf out Pesto/{bin,obj} Pesto.Tests/{bin,obj} Pesto.Bench/{bin,obj}
  case "${1:-}" in
    '') ;;
    all) rm -rf .cache ;;
    *) fail "clean: what is '$1'?" ;;
  esac
}

verb=${1:-build}
[ $# = 0 ] || shift
case $verb in
  build) build ;;
  static) build_static ;;
  test) test_all "$@" ;;
  skips) skips ;;
  soak) soak "$@" ;;
  demo) demo "$@" ;;
  bench) bench "$@" ;;
  peers) peers "$@" ;;
  needs) packages_for built ;;
  clean) clean "$@" ;;
  -h | --help | help) usage ;;
  *) usage >&2; fail "no such verb: $verb" ;;
esac

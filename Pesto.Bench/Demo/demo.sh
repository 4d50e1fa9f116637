#!/bin/bash
# A story in five steps, all of it real: a container, a forwarder, a client that never stops connecting, and changes
# meanwhile. Needs nothing but out/pesto, util-linux, iproute2 and perl. Started by `./build.sh demo`.
set -euo pipefail
cd "$(dirname "$0")/../.."
pesto=${PESTO_BINARY:-out/pesto}

folder=$(mktemp -d /tmp/pesto-demo.XXXXXX)
started=()
cleanup() {
  [ ! -e "$folder/pid" ] || kill "$(cat "$folder/pid")" 2>/dev/null || true
  [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
  wait
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

bold='' plain=''
[ ! -t 1 ] || bold=$'\e[1m' plain=$'\e[0m'
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '%s\n' "$*"; }

# Shows a command and runs it, indented; its exit status is in $status.
show() {
  printf '  $ %s\n' "$*"
  status=0
  "$@" >"$folder/said" 2>&1 || status=$?
  sed 's/^/    /' "$folder/said"
}

# Waits until a process that was just started has made a file.
await() {
  local tries
  for ((tries = 0; tries < 1000; tries++)); do
    [ ! -e "$1" ] || return 0
    kill -0 "$2" 2>/dev/null || break
    sleep 0.01
  done
  tell "Process $2 did not start as it should."
  exit 1
}

must() { show "$@"; [ $status = 0 ] || { tell "That should have worked (exit status $status)."; exit 1; }; }

# A web server of few words: one page, one connection at a time.
cat >"$folder/web" <<'END'
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 80, Listen => 4096, ReuseAddr => 1) or die "port 80: $!\n";
open my $ready, '>', $ARGV[0]; close $ready;
$SIG{PIPE} = 'IGNORE';
while (1) {
  my $client = $listener->accept or next;
  sysread $client, my $request, 4096;
  my $page = "Hello from the container\n";
  syswrite $client, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($page) . "\r\n\r\n$page";
}
END

# Asks for that page over a new connection each time until it is told to stop, and counts what becomes of it.
cat >"$folder/client" <<'END'
use IO::Socket::INET;
my %count = (answered => 0, refused => 0, reset => 0, other => 0);
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
$SIG{PIPE} = 'IGNORE';
sub failed { $count{$!{ECONNREFUSED} ? 'refused' : $!{ECONNRESET} || $!{EPIPE} ? 'reset' : 'other'}++ }
until ($stop) {
  my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ARGV[0]);
  if (!$server) { failed() unless $!{EINTR}; next }
  my $answer = '';
  if (!defined syswrite $server, "GET / HTTP/1.0\r\n\r\n") { failed(); next }
  my $got;
  while ($got = sysread $server, $answer, 4096, length $answer) {}
  if (!defined $got) { failed() unless $!{EINTR} }
  elsif ($answer =~ /Hello from the container/) { $count{answered}++ }
  else { $count{other}++ }
}
print "$count{answered} $count{refused} $count{reset} $count{other}\n";
END

# A free port of this machine and 1,001 free ones behind it, so that the demo is in nobody's way.
port=$(perl -MIO::Socket::INET -e '
  START: for (my $start = 18080; $start < 31000; $start += 1100) {
    my @held;
    for ($start .. $start + 1001) {
      push @held, IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $_, Listen => 1, ReuseAddr => 1) || next START;
    }
    print $start; exit;
  }
  die "no 1,002 free ports in a row\n"')
taken=$((port + 1)) first=$((port + 2)) last=$((port + 1001))

step "1. A container: a network of its own, with a web server on its port 80."
as='unshare -Urn'
if ! unshare -Urn true 2>/dev/null; then
  as='unshare -n'
  $as true 2>/dev/null || { tell "This kernel lets you make no namespace (unshare -Urn). Try as root."; exit 1; }
fi
tell "  \$ $as sh -c 'ip link set lo up; exec perl web' &"
$as sh -c 'ip link set lo up; exec perl "$@"' sh "$folder/web" "$folder/up" &
container=$!
started+=($container)
await "$folder/up" $container
tell "  It is process $container. Nobody reaches it from outside."

step "2. Pesto carries port $port of this machine to it."
must $pesto serve -c "$folder/control" -P "$folder/pid" --netns /proc/$container/ns/net -t "127.0.0.1/$port:80"
must $pesto "$folder/control"

step "3. A client asks for the page, each time over a new connection, and never stops."
perl "$folder/client" "$port" >"$folder/counts" &
client=$!
started+=($client)
tell "  It is process $client."

step "4. Meanwhile the ports change. A thousand more, and away with them, 20 times:"
must $pesto -A -t "127.0.0.1/$first-$last" -s "$folder/control"
must $pesto -D -t "127.0.0.1/$first-$last" "$folder/control"
updates=2
for ((round = 2; round <= 20; round++)); do
  $pesto -A -t "127.0.0.1/$first-$last" "$folder/control" >/dev/null
  $pesto -D -t "127.0.0.1/$first-$last" "$folder/control" >/dev/null
  updates=$((updates + 2))
done
tell "  ... and 200 small changes:"
for ((round = 0; round < 100; round++)); do
  $pesto -A -t "127.0.0.1/$((first + round)):80" "$folder/control" >/dev/null
  $pesto -D -t "127.0.0.1/$((first + round)):80" "$folder/control" >/dev/null
  updates=$((updates + 2))
done
tell "  Done: $updates updates."

tell "  An update that can't be done, since another program listens on port $taken, is told and changes nothing:"
perl -MIO::Socket::INET -e '
  my $held = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) or die;
  open my $ready, ">", $ARGV[1]; close $ready; sleep' "$taken" "$folder/held" &
started+=($!)
await "$folder/held" $!
show $pesto -A -t "127.0.0.1/$taken:80" "$folder/control"
tell "    (exit status $status)"
[ $status = 1 ] || { tell "It should have been told that this port is taken."; exit 1; }
must $pesto "$folder/control"

step "5. What the client saw of all this:"
kill -TERM $client
wait $client || true
read -r answered refused reset other <"$folder/counts"
tell "  $answered connections answered, $refused refused, $reset reset, $other failed otherwise, during $updates updates."
[ "$answered" -gt 0 ] && [ "$((refused + reset + other))" = 0 ] || { tell "That is not how it should be."; exit 1; }
tell "  Nobody noticed a thing."

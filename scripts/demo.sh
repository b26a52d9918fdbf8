#!/usr/bin/env bash
# Three real web servers behind one director, in network namespaces: 300 requests over IPv4 and 300 over IPv6, each on a
# connection of its own, balanced through AF_XDP by direct routing. Exit 0 only if all of them were answered, by all three
# servers. `--keep` leaves the lab up, to play with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/common.sh
source scripts/lib/common.sh

requests=300 # of each address family
keep=0
case ${1:-} in
  '') ;;
  --keep) keep=1 ;;
  -h | --help) echo "usage: demo.sh [--keep]    --keep leaves the lab up and prints commands to try"; exit 0 ;;
  *) echo "demo.sh: unknown argument $1; only --keep is known" >&2; exit 2 ;;
esac

need_root "the demo"
install_missing "${build_packages[@]}" "${lab_packages[@]}"
find_cargo

say "Building xlvs"
cargo build --release --locked --bin xlvs
XLVS_BIN=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/release/xlvs
export XLVS_BIN XLVS_LAB=xlvs-$$

daemon='' ok=0
cleanup() {
  if ((ok == 1 && keep == 1)); then return; fi
  if [[ -n $daemon ]] && kill -TERM "$daemon" 2>/dev/null; then
    local tries
    for tries in {1..50}; do
      kill -0 "$daemon" 2>/dev/null || break
      ((tries < 50)) || kill -KILL "$daemon" 2>/dev/null || true
      sleep 0.1
    done
  fi
  if ((ok == 0)) && [[ -f ${dir:-}/xlvs.log ]]; then
    echo "the director's log:" >&2
    tail -n 40 "$dir/xlvs.log" >&2
  fi
  scripts/lab.sh down # ends the web servers too
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

say "Laboratory $XLVS_LAB: client, director and three real servers on a bridge"
scripts/lab.sh up --owner $((keep ? 0 : $$)) >/dev/null
dir=/run/xlvs-lab/$XLVS_LAB
export XLVS_SOCKET=$dir/xlvs.sock
scripts/lab.sh web
cat >"$dir/xlvs.toml" <<'TEXT'
[director]
interface = "eth0"

[[service]]
address = "10.0.0.100"
port = 80
destination = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }, { address = "10.0.0.13" }]

[[service]]
address = "fd00::100"
port = 80
destination = [{ address = "fd00::11" }, { address = "fd00::12" }, { address = "fd00::13" }]
TEXT
cat "$dir/xlvs.toml"

say "Starting the director"
# Not by `ip netns exec`: what the daemon pins in bpffs has to outlive it.
nsenter --net="/run/netns/$XLVS_LAB-director" "$XLVS_BIN" run --config "$dir/xlvs.toml" --state-dir "$dir/state" \
  </dev/null >"$dir/xlvs.log" 2>&1 &
daemon=$!
ready='(.services | length == 2) and all(.services[]; .served and all(.destinations[]; .neighbor == "resolved"))'
deadline=$((SECONDS + 15))
until "$XLVS_BIN" status --json 2>/dev/null | jq -e "$ready" >/dev/null; do
  kill -0 "$daemon" 2>/dev/null || { echo "demo: the director ended at its start" >&2; exit 1; }
  if ((SECONDS >= deadline)); then
    echo "demo: the director was not ready within 15 s; its status:" >&2
    "$XLVS_BIN" status >&2 || true
    exit 1
  fi
  sleep 0.05
done
cat "$dir/xlvs.log"

counter() { scripts/lab.sh exec director ip -s -j link show dev eth0 | jq ".[0].stats64.$1.bytes"; }
received=$(counter rx) sent=$(counter tx)

say "Sending $requests requests over IPv4 and $requests over IPv6, a new connection each"
for address in 10.0.0.100 '[fd00::100]'; do
  for ((n = 0; n < requests; n++)); do
    printf 'url = "http://%s/page"\noutput = /dev/null\n' "$address"
  done >"$dir/urls"
  # Whatever a request came to is counted below, so curl's own verdict (that of its last transfer) says nothing new.
  scripts/lab.sh exec client curl --silent --connect-timeout 5 --max-time 60 -H 'Connection: close' \
    --write-out '%{http_code} %{size_download} %header{x-server}\n' --config "$dir/urls" || true
done >"$dir/answers"
received=$(($(counter rx) - received)) sent=$(($(counter tx) - sent))

awk '$1 == 200 { n[$3]++ } END { for (server in n) print "  " server " answered " n[server] }' "$dir/answers" | sort
answered=$(grep -c '^200 65536 rs' "$dir/answers" || true)
servers=$(awk '$1 == 200 { print $3 }' "$dir/answers" | sort -u | wc -l)
downloaded=$(awk '{ n += $2 } END { print n + 0 }' "$dir/answers")

say "xlvs status"
"$XLVS_BIN" status
via=$("$XLVS_BIN" status --json | jq -r '.interfaces[0] | "\(.xdp_mode), \(if .zero_copy then "zero-copy" else "copy" end)"')

say "Did the replies pass the director?"
printf '  downloaded by the client         %10d bytes\n' "$downloaded"
printf '  received by the director'\''s eth0  %10d bytes (what the client sent, acknowledgements mostly)\n' "$received"
printf '  sent by the director'\''s eth0      %10d bytes (the same, on to the servers)\n' "$sent"
bypassed=0
if ((downloaded > 0 && received < downloaded / 4 && sent < downloaded / 4)); then
  bypassed=1
  echo "  No: it carried far less than was downloaded; the servers answered the client directly."
else
  echo "  Its counters do not show that they went past it." >&2
fi

if ((answered == 2 * requests && servers == 3 && bypassed == 1)); then ok=1; fi
if ((ok == 1 && keep == 1)); then
  disown "$daemon"
  cat <<TEXT

The lab stays up. From $PWD, as root:
  export XLVS_LAB=$XLVS_LAB XLVS_SOCKET=$XLVS_SOCKET
  ./scripts/lab.sh exec client curl http://10.0.0.100/       # once more, and again: another server
  ./scripts/lab.sh exec client curl 'http://[fd00::100]/'
  $XLVS_BIN status
  \$EDITOR $dir/xlvs.toml                  # a weight, a server less ...
  kill -HUP $daemon                                          # ... and the director reads it again
  ./scripts/lab.sh exec rs1 tcpdump -ni eth0 port 80         # what reaches a real server
  less $dir/xlvs.log
  ./scripts/lab.sh down                                      # ends all of it
TEXT
fi
echo
echo "demo: $answered of $((2 * requests)) requests answered, $servers servers, via AF_XDP ($via)"
((ok == 1))

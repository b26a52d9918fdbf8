#!/usr/bin/env bash
# The laboratory: network namespaces on Linux bridges, for demo, tests and benchmarks alike. Nothing outside its own
# namespaces is touched; every namespace is named after the lab, and the lab by default after the pid of this script.
#
#                        front 10.0.0.0/24, fd00::/64
#       client .5 ──┬──────────┬──────────────┬──────────── bridges live in the namespace "switch"
#                director .2  [director2 .3]  rs1 .11, rs2 .12, rs3 .13       VIPs 10.0.0.100, fd00::100
#
#   --router     the client moves behind a router (front .1) to 10.0.2.0/24, fd00:0:0:2::/64; VIP and servers stay
#   --two-armed  the servers move to 10.0.1.0/24, fd00:0:0:1::/64; directors get an eth1 there (.2, .3); the servers'
#                replies come to the front through the router (.1 on both), so that they never pass a director
#
#   --plan FILE  other hosts, networks and addresses, as the file says (scripts/lib/plan.sh)
#
# Address N of a network is 10.0.X.N and fd00:0:0:X::N; MACs are 02:00:00:00:0X:NN. Links are veth; what their offloads
# break (unfinished checksums, TSO, tags kept beside the frame) is turned off on both ends.
set -euo pipefail

LABS=/run/xlvs-lab
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/plan.sh
source "$here/lib/plan.sh"

usage() {
  cat <<'TEXT'
usage: lab.sh up [--name NAME] [--servers N] [--router] [--two-armed] [--director2] [--queues N] [--mtu M] [--owner PID]
       lab.sh up [--name NAME] --plan FILE [--queues N] [--mtu M] [--owner PID]
       lab.sh down [--name NAME] | down --stale
       lab.sh exec [--name NAME] ROLE COMMAND...
       lab.sh web [--name NAME] [ROLE...]      an nginx on every (or the named) real server
       lab.sh list
roles: client director director2 director3 router switch rs1 rs2 rs3 ...
`up` prints the lab as key=value lines, kept in /run/xlvs-lab/NAME/lab.env. `down` is safe to repeat and removes a half-built
lab too; --stale removes the labs whose owner process (default: who called `up`; 0: nobody, kept) has ended. NAME defaults to
$XLVS_LAB, then to the only lab there is. XLVS_BIN names the xlvs program that sets real servers up; without it, ip and sysctl do.
TEXT
}

die() { printf 'lab.sh: %s\n' "$1" >&2; exit "${2:-1}"; }

# The network namespace only: `ip netns exec` would make a mount namespace as well, and what a daemon pins in bpffs under
# it would die with the process.
inside() { local ns=$1; shift; nsenter --net="/run/netns/$ns" "$@"; }

number() { # option, value, least, greatest
  if [[ ! $2 =~ ^[1-9][0-9]{0,4}$ ]] || (($2 < $3 || $2 > $4)); then die "$1 $2: a number from $3 to $4 is allowed" 2; fi
}

name_ok() { [[ $1 =~ ^[a-z][a-z0-9-]{0,39}$ ]] || die "--name $1: small letters, digits and '-' are allowed, 40 at most" 2; }

pick_name() { # sets `name` when it was not given
  [[ -n $name ]] && { name_ok "$name"; return; }
  name=${XLVS_LAB:-}
  [[ -n $name ]] && { name_ok "$name"; return; }
  local labs=("$LABS"/*/)
  [[ -d ${labs[0]} ]] || die "no lab is up: ./scripts/lab.sh up makes one"
  ((${#labs[@]} == 1)) || die "several labs are up; choose one by --name: ${labs[*]#"$LABS/"}" 2
  name=$(basename "${labs[0]}")
}

namespaces_of() { # the namespaces of a lab, also of a half-built one
  ip netns list | awk '{print $1}' | grep -E "^$1-(switch|client|director[23]?|router|rs[0-9]+)\$" || true
}

# ---- down ------------------------------------------------------------------------------------------------------------

end_processes() { # of one namespace: these can only be the lab's own; asks first, then insists
  local ns=$1 signal pids pid tries
  for signal in TERM KILL; do
    for tries in {1..30}; do
      pids=
      for pid in $(ip netns pids "$ns" 2>/dev/null || true); do
        [[ $pid == "$$" || $pid == "$PPID" ]] || pids+=" $pid"
      done
      [[ -n $pids ]] || return 0
      # shellcheck disable=SC2086 # a list of pids
      ((tries > 1)) || kill "-$signal" $pids 2>/dev/null || true
      sleep 0.05
    done
  done
}

down() { # name
  local ns all
  all=$(namespaces_of "$1")
  for ns in $all; do end_processes "$ns"; done
  # A director that was killed leaves its program's link pinned in bpffs, where it would outlive the namespace.
  if [[ -n ${XLVS_BIN:-} && -x $XLVS_BIN ]]; then
    for ns in $all; do
      [[ $ns == *-director* ]] || continue
      inside "$ns" "$XLVS_BIN" detach eth0 >/dev/null 2>&1 || true
      if inside "$ns" ip link show dev eth1 >/dev/null 2>&1; then
        inside "$ns" "$XLVS_BIN" detach eth1 >/dev/null 2>&1 || true
      fi
    done
  fi
  # What the real servers' set-up remembers of a namespace would outlive it in /run.
  if [[ -n ${XLVS_BIN:-} && -x $XLVS_BIN ]]; then
    local vips=()
    mapfile -t vips < <(sed -n 's/^vips=//p' "$LABS/$1/lab.env" 2>/dev/null | tr ' ' '\n')
    for ns in $all; do
      if [[ $ns != *-rs* && $ns != *-director* ]] || ((${#vips[@]} == 0)); then continue; fi
      inside "$ns" "$XLVS_BIN" real-server down "${vips[@]}" >/dev/null 2>&1 || true
    done
  fi
  for ns in $all; do ip netns delete "$ns" || true; done
  rm -rf -- "${LABS:?}/$1"
  rm -f -- "/dev/shm/$1-"*.connections*
  rmdir --ignore-fail-on-non-empty "$LABS" 2>/dev/null || true
}

down_stale() {
  local lab owner
  for lab in "$LABS"/*/; do
    [[ -f $lab/lab.env ]] || continue
    owner=$(sed -n 's/^owner=//p' "$lab/lab.env")
    if [[ $owner != 0 && ! -d /proc/$owner ]]; then down "$(basename "$lab")"; fi
  done
}

# ---- up --------------------------------------------------------------------------------------------------------------

v4() { echo "10.0.$1.$2"; }
v6() { if (($1 == 0)); then echo "fd00::$2"; else echo "fd00:0:0:$1::$2"; fi; }
mac() { printf '02:00:00:00:%02x:%02d' "$1" "$2"; }

namespace() { # role
  local ns=$name-$1
  ip netns add "$ns"
  echo "ns_$1=$ns" >>"$env_file"
  # Set as default before the links come, so that no address waits for duplicate detection and nothing solicits routers.
  # shellcheck disable=SC2016 # expanded by the inner shell
  inside "$ns" sh -c '
    for where in all default; do
      cd /proc/sys/net/ipv6/conf/$where
      echo 0 >accept_dad; echo 0 >dad_transmits; echo 0 >router_solicitations; echo 0 >accept_ra; echo 0 >accept_redirects
      cd /proc/sys/net/ipv4/conf/$where
      echo 2 >rp_filter; echo 0 >send_redirects; echo 0 >accept_redirects
    done
    # One congestion control everywhere, whatever the host prefers; reno is in every kernel.
    cd /proc/sys/net/ipv4
    echo cubic >tcp_congestion_control 2>/dev/null || echo reno >tcp_congestion_control
    ip link set lo up'
}

queues_on() { # namespace, interface
  ((queues == 1)) || inside "$1" ethtool -L "$2" rx "$queues" tx "$queues"
}

# A veth from a bridge's port to a namespace, addressed and up.
wire() { # role, interface, network, MAC, queues, addresses with their prefix lengths...
  local ns=$name-$1 switch=$name-switch port=$1-$2 interface=$2 network=$3 mac=$4 queues=$5 address
  local port_options="mtu $mtu numrxqueues $queues numtxqueues $queues"
  shift 5
  ip -n "$switch" -batch - <<TEXT
link add $port $port_options type veth peer name $interface netns $ns address $mac $port_options
link set $port master br$network
link set $port up
TEXT
  ip -n "$ns" link set "$interface" up
  for address in "$@"; do
    if [[ $address == *:* ]]; then
      ip -n "$ns" address add "$address" dev "$interface" nodad
    else
      ip -n "$ns" address add "$address" dev "$interface"
    fi
  done
  queues_on "$switch" "$port"
  queues_on "$ns" "$interface"
  # tx off finishes checksums before a frame leaves (and takes TSO along); txvlan off puts a tag into the frame's bytes.
  inside "$switch" ethtool -K "$port" tx off txvlan off tx-vlan-stag-hw-insert off >/dev/null
  inside "$ns" ethtool -K "$interface" tx off txvlan off tx-vlan-stag-hw-insert off >/dev/null
  echo "mac_${port/-/_}=$mac" >>"$env_file"
}

link() { # role, interface, network, number, queues
  wire "$1" "$2" "$3" "$(mac "$3" "$4")" "$5" "$(v4 "$3" "$4")/24" "$(v6 "$3" "$4")/64"
  # The address by which others know the role is that of its first link.
  grep -q "^$1_v4=" "$env_file" || printf '%s\n' "$1_v4=$(v4 "$3" "$4")" "$1_v6=$(v6 "$3" "$4")" >>"$env_file"
}

bridge() { # network
  # No forwarding delay (a port works at once), no spanning tree, no snooping (neighbour solicitations reach everyone).
  ip -n "$name-switch" link add "br$1" mtu "$mtu" type bridge forward_delay 0 stp_state 0 mcast_snooping 0
  ip -n "$name-switch" link set "br$1" up
}

default_route() { # role, network
  ip -n "$name-$1" route add default via "$(v4 "$2" 1)"
  ip -n "$name-$1" -6 route add default via "$(v6 "$2" 1)"
}

director() { # role, number
  namespace "$1"
  link "$1" eth0 0 "$2" "$queues"
  ((two_armed == 0)) || link "$1" eth1 1 "$2" "$queues"
  ((router == 0)) || default_route "$1" 0
}

# To be called before the namespace has links.
server_settings() { # role
  # A server that gets another MAC says so, as a replaced machine does.
  inside "$name-$1" sh -c 'echo 1 >/proc/sys/net/ipv4/conf/default/arp_notify; echo 1 >/proc/sys/net/ipv6/conf/default/ndisc_notify
    echo 4096 >/proc/sys/net/core/somaxconn; echo 4096 >/proc/sys/net/ipv4/tcp_max_syn_backlog'
}

vips_on_lo() { # role, VIPs...
  local ns=$name-$1 vip
  shift
  if [[ -n ${XLVS_BIN:-} ]]; then
    inside "$ns" "$XLVS_BIN" real-server up "$@" >/dev/null
    return
  fi
  # shellcheck disable=SC2016 # expanded by the inner shell
  inside "$ns" sh -c '
    for where in all lo; do
      echo 1 >/proc/sys/net/ipv4/conf/$where/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/$where/arp_announce
    done'
  for vip in "$@"; do
    if [[ $vip == *:* ]]; then
      ip -n "$ns" address add "$vip/128" dev lo nodad
    else
      ip -n "$ns" address add "$vip/32" dev lo
      ip -n "$ns" route add "$vip/32" dev lo
    fi
  done
}

real_server() { # role, network, number
  namespace "$1"
  server_settings "$1"
  link "$1" eth0 "$2" "$3" 1
  ((router == 0 && two_armed == 0)) || default_route "$1" "$2"
  vips_on_lo "$1" "$vip_v4" "$vip_v6"
}

forward_packets() { # role
  inside "$name-$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
}

many_short_connections() { # role; as a load generator opens them from one address
  inside "$name-$1" sh -c 'echo "1024 65535" >/proc/sys/net/ipv4/ip_local_port_range; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
}

build() {
  local n servers_net=0 client_net=0
  ((two_armed == 0)) || servers_net=1
  ((router == 0)) || client_net=2

  namespace switch
  bridge 0
  ((two_armed == 0)) || bridge 1
  ((router == 0)) || bridge 2

  if ((router + two_armed > 0)); then
    namespace router
    link router eth0 0 1 1
    ((two_armed == 0)) || link router eth1 1 1 1
    ((router == 0)) || link router eth2 2 1 1
    forward_packets router
  fi

  namespace client
  link client eth0 "$client_net" 5 1
  ((router + two_armed == 0)) || default_route client "$client_net"
  many_short_connections client

  director director 2
  ((director2 == 0)) || director director2 3
  # preferred_lft 0: otherwise this /128 is the longest match for its neighbours, and the director would speak to the real
  # servers from an address that is also theirs.
  ip -n "$name-director" -batch - <<TEXT
address add $vip_v4/32 dev eth0
address add $vip_v6/128 dev eth0 nodad preferred_lft 0
TEXT

  for ((n = 1; n <= servers; n++)); do real_server "rs$n" "$servers_net" $((10 + n)); done
}

up() {
  [[ -z ${XLVS_BIN:-} || -x $XLVS_BIN ]] || die "XLVS_BIN=$XLVS_BIN is not a program"
  : "${name:=${XLVS_LAB:-xlvs-$$}}"
  name_ok "$name"
  [[ -z $plan ]] || check_plan "$plan"
  mkdir -p "$LABS"
  mkdir "$LABS/$name" 2>/dev/null || die "a lab named $name exists; remove it by: $here/lab.sh down --name $name"
  # A build that fails, or is interrupted, cleans up after itself.
  trap 'echo "lab.sh: $name could not be built; what there was of it is removed" >&2; down "$name"' EXIT
  trap 'exit 130' INT TERM HUP
  env_file=$LABS/$name/lab.env
  printf '%s\n' "name=$name" "dir=$LABS/$name" "owner=$owner" "queues=$queues" "mtu=$mtu" >"$env_file"
  if [[ -n $plan ]]; then
    build_plan "$plan"
  else
    vip_v4=$(v4 0 100) vip_v6=$(v6 0 100)
    printf '%s\n' "servers=$servers" "vip_v4=$vip_v4" "vip_v6=$vip_v6" "vips=$vip_v4 $vip_v6" >>"$env_file"
    build
  fi
  trap - EXIT
  cat "$env_file"
}

# ---- web -------------------------------------------------------------------------------------------------------------

web() { # roles
  local dir=$LABS/$name role
  if ((${#roles[@]} == 0)); then
    mapfile -t roles < <(sed -n 's/^ns_\(rs[0-9]*\)=.*/\1/p' "$dir/lab.env")
  fi
  [[ -f $dir/download ]] || head -c 20971520 /dev/urandom >"$dir/download"
  for role in "${roles[@]}"; do
    [[ -e /run/netns/$name-$role ]] || die "no $role in lab $name" 2
    mkdir -p "$dir/web-$role/temp"
    # A page that begins with the server's name and is long enough to tell replies from acknowledgements: 64 KiB.
    { echo "$role"; head -c 65532 /dev/zero | tr '\0' '.'; } | head -c 65536 >"$dir/web-$role/page"
    cat >"$dir/web-$role/nginx.conf" <<TEXT
user root;
worker_processes 1;
pid $dir/web-$role/nginx.pid;
error_log $dir/web-$role/error.log warn;
events { worker_connections 8192; }
http {
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  client_body_temp_path $dir/web-$role/temp/body;
  proxy_temp_path $dir/web-$role/temp/proxy;
  fastcgi_temp_path $dir/web-$role/temp/fastcgi;
  uwsgi_temp_path $dir/web-$role/temp/uwsgi;
  scgi_temp_path $dir/web-$role/temp/scgi;
  add_header X-Server $role always;
  server {
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    location = / { return 200 "$role\\n"; }
    location = /page { root $dir/web-$role; }
    location = /download { root $dir; }
  }
}
TEXT
    # nginx returns when it listens; its master's pid is in nginx.pid.
    inside "$name-$role" nginx -p "$dir/web-$role" -e "$dir/web-$role/error.log" -c "$dir/web-$role/nginx.conf"
  done
}

# ---- the command line ------------------------------------------------------------------------------------------------

(($# > 0)) || { usage >&2; exit 2; }
verb=$1; shift
case $verb in -h | --help | help) usage; exit 0 ;; esac
((EUID == 0)) || die "network namespaces need root" 3

name='' servers=3 router=0 two_armed=0 director2=0 queues=1 mtu=1500 owner=$PPID stale=0 plan='' roles=()
while (($# > 0)); do
  case $1 in
    --name | --servers | --queues | --mtu | --owner | --plan)
      (($# >= 2)) || die "$1 wants a value" 2
      case $1 in
        --name) name=$2 ;;
        --servers) number "$1" "$2" 1 80; servers=$2 ;;
        --queues) number "$1" "$2" 1 64; queues=$2 ;;
        --mtu) number "$1" "$2" 1280 9000; mtu=$2 ;;
        --plan) [[ -r $2 ]] || die "--plan $2: no such file" 2; plan=$2 ;;
        --owner) [[ $2 =~ ^[0-9]+$ ]] || die "--owner $2: a pid, or 0" 2; owner=$2 ;;
      esac
      shift 2 ;;
    --router) router=1; shift ;;
    --two-armed) two_armed=1; shift ;;
    --director2) director2=1; shift ;;
    --stale) stale=1; shift ;;
    -*) usage >&2; die "unknown option $1" 2 ;;
    *) break ;;
  esac
done

case $verb in
  up) (($# == 0)) || die "up takes options only, found $1" 2; up ;;
  down)
    (($# == 0)) || die "down takes options only, found $1" 2
    if ((stale == 1)); then down_stale; exit 0; fi
    if [[ -z $name && -z ${XLVS_LAB:-} && -z $(ls "$LABS" 2>/dev/null) ]]; then exit 0; fi # nothing is up: safe to repeat
    pick_name; down "$name" ;;
  exec)
    pick_name
    (($# >= 2)) || die "exec wants a role and a command" 2
    [[ -e /run/netns/$name-$1 ]] || die "no $1 in lab $name; there are: $(namespaces_of "$name" | sed "s/^$name-//" | tr '\n' ' ')" 2
    ns=$name-$1; shift
    exec nsenter --net="/run/netns/$ns" "$@" ;;
  web) pick_name; [[ -d $LABS/$name ]] || die "no lab $name is up" 2; roles=("$@"); web ;;
  list) [[ ! -d $LABS ]] || ls "$LABS" ;;
  *) usage >&2; die "unknown command $verb" 2 ;;
esac

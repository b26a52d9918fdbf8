# shellcheck shell=bash
# Sourced by lab.sh: a laboratory of hosts, networks and addresses as a file says, one fact a line, # begins a comment:
#
#   ROLE INTERFACE NETWORK ADDRESS/LENGTH... [via GATEWAY]    a link of a host, whose namespace its first line makes
#   vip ADDRESS                                               on lo of every real server (rs1, rs2 ...); the director's own
#                                                             is left to who tests
#
# A network's name (one small word) makes its bridge. The router forwards. MACs are 02:00:00:00:XX:NN: XX counts the networks from 00,
# NN is the last octet of the link's first address. Facts that `up` prints are named as without a plan; `vip_v4` is the first VIP.

# What a plan says wrongly is said with its line, before anything is built.
check_plan() { # file
  local line role interface network address rest number=0
  local ip='([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|[0-9a-f:]+)'
  while read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%%#*}
    [[ -n ${line// /} ]] || continue
    read -r role interface network address rest <<<"$line"
    if [[ $role == vip ]]; then
      [[ $interface =~ ^$ip$ && -z $network ]] || die "$1:$number: an address is wanted after vip, found ${line#vip}" 2
      continue
    fi
    [[ $role =~ ^(client|director[23]?|router|rs[0-9]+)$ ]] ||
      die "$1:$number: $role is no role: client, director, director2, director3, router, rs1, rs2 ... are" 2
    [[ $interface =~ ^eth[0-9]$ && $network =~ ^[a-z]{1,10}$ && $address =~ ^[0-9]+(\.[0-9]+){3}/[0-9]+$ ]] ||
      die "$1:$number: ROLE ethN NETWORK ADDRESS/LENGTH is wanted (IPv4 first), found $line" 2
    [[ -z $rest || $rest =~ ^($ip/[0-9]+\ ?)*(via\ $ip)?$ ]] || die "$1:$number: addresses, or via GATEWAY: found $rest" 2
  done <"$1"
}

# shellcheck disable=SC2154 # name, env_file and queues are lab.sh's
build_plan() { # file, checked
  local role interface network rest address gateway index vips=() networks=() addresses=()
  namespace switch
  while read -r role interface network rest || [[ -n $role ]]; do
    if [[ $role == vip ]]; then
      vips+=("$interface")
      continue
    fi
    if [[ " ${networks[*]} " != *" $network "* ]]; then
      bridge "$network"
      networks+=("$network")
    fi
    for index in "${!networks[@]}"; do [[ ${networks[index]} != "$network" ]] || break; done
    gateway=''
    [[ $rest != *via* ]] || { gateway=${rest##* } rest=${rest%via*}; }
    read -ra addresses <<<"$rest"
    address=${addresses[0]%/*}
    if ! grep -q "^ns_$role=" "$env_file"; then
      namespace "$role"
      case $role in
        rs*) server_settings "$role" ;;
        router) forward_packets "$role" ;;
        client) many_short_connections "$role" ;;
      esac
      echo "${role}_v4=$address" >>"$env_file"
    fi
    wire "$role" "$interface" "$network" "$(printf '02:00:00:00:%02x:%02x' "$index" "${address##*.}")" \
      "$([[ $role == director* ]] && echo "$queues" || echo 1)" "${addresses[@]}"
    [[ -z $gateway ]] || ip -n "$name-$role" route add default via "$gateway"
  done < <(sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "$1")
  ((${#vips[@]} > 0)) || return 0
  printf '%s\n' "vips=${vips[*]}" "vip_v4=${vips[0]}" >>"$env_file"
  while read -r role; do
    vips_on_lo "$role" "${vips[@]}"
  done < <(sed -n 's/^ns_\(rs[0-9]*\)=.*/\1/p' "$env_file")
}

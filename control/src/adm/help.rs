//! What `-h` and `-v` print.

/// The version whose behaviour this is, in its own words: scripts read it.
pub(super) const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";

/// How to use it.
pub(super) fn text(program: &str) -> String {
    format!("{VERSION}\n\nUsage: {program} COMMAND [OPTION]...\n\n{HELP}")
}

const HELP: &str = "\
Virtual services:
  -A, --add-service SERVICE       add one: -s -p -M --pe -b -o
  -E, --edit-service SERVICE      change one; options not given get their defaults
  -D, --delete-service SERVICE    remove one and its destinations
  -C, --clear                     remove all
  -Z, --zero [SERVICE]            zero the counters of one or of all

Destinations:
  -a, --add-server SERVICE -r DESTINATION      add one: -g -i -m -w -x -y --tun-*
  -e, --edit-server SERVICE -r DESTINATION     change one
  -d, --delete-server SERVICE -r DESTINATION   remove one

The table:
  -L, -l, --list [SERVICE]        print it: -n -X --stats --rate --thresholds
                                  --persistent-conn --tun-info --nosort
  -L -c, --connection             print the connections: -n --persistent-conn
  -L --timeout, -L --daemon       print the timeouts, the connection sync daemons
      --json                      any list as JSON (not in ipvsadm)
  -S, --save [-n]                 print it as commands
      --full                      with all that -S leaves out (not in ipvsadm)
  -R, --restore                   run commands from standard input, one a line

Settings:
  --set TCP TCPFIN UDP            timeouts in seconds; 0 keeps one
  --start-daemon master|backup    start connection sync: --mcast-interface --syncid
                                  --sync-maxlen --mcast-group --mcast-port --mcast-ttl
  --stop-daemon master|backup     stop it
  -h, --help                      print this
  -v, --version                   print the version

SERVICE is one of:
  -t, --tcp-service HOST[:PORT]   TCP; IPv6 addresses with a port in brackets
  -u, --udp-service HOST[:PORT]   UDP
      --sctp-service HOST[:PORT]  SCTP
  -f, --fwmark-service MARK       packets with a mark; with -6, --ipv6 those of IPv6
Port 0 stands for all ports and needs -p.

Options of a service:
  -s, --scheduler NAME            rr wrr lc wlc (default) lblc lblcr dh sh sed nq fo
                                  ovf mh twos
  -b, --sched-flags FLAG,...      sh-port sh-fallback mh-port mh-fallback flag-1 flag-2
                                  flag-3
  -p, --persistent [SECONDS]      persistent (default 360)
  -M, --netmask MASK|LENGTH       who is one client: IPv4 mask, IPv6 prefix length
      --pe NAME                   persistence engine
  -o, --ops                       one-packet scheduling, of UDP or a mark

Options of a destination:
  -r, --real-server HOST[:PORT]   its address
  -g, --gatewaying                direct routing (default)
  -i, --ipip                      tunnel: --tun-type ipip|gue|gre --tun-port PORT
                                  --tun-nocsum --tun-csum --tun-remcsum
  -m, --masquerading              address translation
  -w, --weight WEIGHT             0 to 2147483647 (default 1); 0 quiesces
  -x, --u-threshold COUNT         connections at which it takes no more (0: no limit)
  -y, --l-threshold COUNT         connections below which it takes them again
";

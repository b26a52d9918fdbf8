//! Messages and readings beyond the captured ones, each as ipvsadm 1.31 gave it.

use crate::shell::{Outcome, Shell};

/// A table with one service and one destination.
fn shell() -> Shell {
    let mut shell = Shell::new();
    for command in ["ipvsadm -A -t 10.0.0.1:80 -s rr", "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2"] {
        assert_eq!(shell.run(command, ""), Some(Outcome::default()), "{command}");
    }
    shell
}

#[test]
fn mistakes_get_ipvsadms_words_and_exit_codes() {
    for (command, code, err) in [
        ("-t 10.0.0.1:80 -A", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("-n", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("--lis", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("--start-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("-", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("- -L", 2, "unexpected argument -"),
        ("-A -Q", 255, "-Q: unknown option"),
        ("-Ln5", 255, "-Ln5: unknown option"),
        ("-A --nonsense", 255, "--nonsense: unknown option"),
        ("-At", 255, "-At: missing argument"),
        ("-L --exact=5", 255, "--exact=5: option does not take an argument"),
        ("-L -nX=5", 255, "-nX=5: option does not take an argument"),
        ("-A -A", 2, "invalid option `-A'"),
        ("-L -nA", 2, "invalid option `-nA'"),
        ("-A --start-daemon master", 2, "invalid option `master'"),
        ("-A -t 1.1.1.1:1 -6", 2, "-6 used before -f\n"),
        ("-L -f 5 -f 6", 2, "multiple 'service-address' options specified"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 -g -m", 2, "multiple 'forwarding-method' options specified"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 -w x", 2, "illegal weight specified"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 -w 2147483648", 2, "illegal weight specified"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 -x -1", 2, "illegal u_threshold specified"),
        ("-C -w x", 2, "illegal weight specified"),
        ("-C -w 1", 2, "Illegal 'weight' option with the 'flush' command"),
        ("-C -X", 2, "Illegal 'exact' option with the 'flush' command"),
        ("-a -t 10.0.0.1:80", 2, "You need to supply the 'real-server' option for the 'add-server' command"),
        ("-d -t 10.0.0.1:80 -r 10.0.0.9", 255, "No such destination"),
        ("-d -t 10.0.0.1:81 -r 10.0.0.9", 255, "Service not defined"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 --tun-type gre", 2, "Tunnel options conflict with forward method"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.3 -i --tun-type foo", 2, "illegal tunnel type specified"),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.3 -i --tun-type gue",
            2,
            "You need to supply the 'tun-port' option for the 'gue' tunnel type",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.3 -i --tun-csum",
            2,
            "Illegal 'tun-csum' option with the 'ipip' tunnel type",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.3 -i --tun-type gue --tun-port 5 --tun-csum --tun-remcsum",
            2,
            "The option 'tun-remcsum' conflicts with the 'tun-csum' option in the 'gue' tunnel type",
        ),
        (
            "-L -c -t 10.0.0.1:80 -s rr",
            2,
            "The option 'service-address' conflicts with the 'connection' option in the 'list' command",
        ),
        (
            "-L --daemon --timeout --tun-csum",
            2,
            "The option 'daemon' conflicts with the 'timeout' option in the 'list' command",
        ),
        ("-L --timeout -s rr", 2, "Illegal 'scheduler' option with the 'list' command"),
        ("-L --timeout --persistent-conn", 2, "options conflicts in the list command"),
        ("-list", 2, "Illegal 'scheduler' option with the 'list' command"),
        ("--set 1 2", 2, "--set option requires 3 timeout values"),
        ("--set x 2", 2, "--set option requires 3 timeout values"),
        ("--set 1 2 3 4", 2, "unexpected argument 4"),
        ("--set 1 2678401 3", 2, "invalid timeout value `2678401' specified"),
        ("--start-daemon mas", 2, "illegal start-daemon parameter specified"),
        ("--stop-daemon mas", 2, "illegal start_daemon specified"),
        ("--stop-daemon backup", 255, "No daemon is running"),
        ("--start-daemon master --mcast-interface nope", 255, "No such device"),
        ("--start-daemon master --syncid 256", 2, "illegal syncid specified"),
        ("--start-daemon master --sync-maxlen 65508", 2, "illegal sync-maxlen specified"),
        ("--start-daemon master --mcast-group 1.2.3.4", 2, "invalid IPv4 mcast-group `1.2.3.4'"),
        ("--start-daemon master --mcast-group fd00::1", 2, "invalid IPv6 mcast-group `fd00::1'"),
        ("--start-daemon master --mcast-port 0", 2, "illegal mcast-port specified"),
        ("--start-daemon master --mcast-ttl 256", 2, "illegal mcast-ttl specified"),
        ("-A -t 1.1.1.1:80 -b bogus extra", 2, "unexpected argument extra"),
        ("-A -p -t 5", 2, "illegal virtual server address[:port] specified"),
        ("-A -b sh-port", 2, "incompatible scheduler flag `sh-port'"),
        ("-A -t [fd00::5]:80 -M 255.255.255.0 -p", 2, "illegal ipv6 netmask specified"),
        ("-A -t 1.1.1.1:80 -M x", 2, "illegal virtual server persistent mask specified"),
    ] {
        let outcome = shell().run(&format!("ipvsadm {command}"), "");
        let expected = Outcome { code, out: String::new(), err: format!("{err}\n") };
        assert_eq!(outcome, Some(expected), "{command}");
    }
}

#[test]
fn one_thing_can_be_written_in_many_ways() {
    for (command, saved) in [
        ("-A -t1.1.1.1:1 -srr", "-A -t 1.1.1.1:1 -s rr"),
        ("-At=1.1.1.1:1 -s=rr", "-A -t 1.1.1.1:1 -s rr"),
        ("--add-service --tcp-service=1.1.1.1:1 --scheduler rr", "-A -t 1.1.1.1:1 -s rr"),
        ("-A -t 1.1.1.1:1 -p600", "-A -t 1.1.1.1:1 -s wlc -p 600"),
        ("-A -p 600 -t 1.1.1.1:1", "-A -t 1.1.1.1:1 -s wlc -p 600"),
        ("-A -t 1.1.1.1:1 -p -s rr", "-A -t 1.1.1.1:1 -s rr -p 360"),
        ("-A -t 1.1:1", "-A -t 1.0.0.1:1 -s wlc"),
        ("-A -t 1.1.1.1:http", "-A -t 1.1.1.1:80 -s wlc"),
        ("-A -u localhost:tftp", "-A -u 127.0.0.1:69 -s wlc"),
        ("-A -t [1.1.1.1]:5 -p", "-A -t 1.1.1.1:0 -s wlc -p 360"),
        ("-A -t fd00::1 -p", "-A -t [fd00::1]:0 -s wlc -p 360"),
        ("-A -f 70 -6 -M 64 -p", "-A -f 70 -6 -s wlc -p 360 -M 64"),
        ("-A -f 70 -M 64 -6 -p", "-A -f 70 -6 -s wlc -p 360"),
        ("-A -M 64 -t [fd00::2]:80 -p", "-A -t [fd00::2]:80 -s wlc -p 360"),
        ("-A -f 010", "-A -f 10 -s wlc"),
        ("-A -t 1.1.1.1:1 -s sh -b ,sh-port,,sh-fallback", "-A -t 1.1.1.1:1 -s sh -b sh-fallback,sh-port"),
        ("-A -t 1.1.1.1:1 -b flag-3,flag-1 --pe sip", "-A -t 1.1.1.1:1 -s wlc --pe sip -b flag-1,flag-3"),
        (
            "-A -u 1.1.1.1:85 -p 5 -o -M 255.255.255.0 -b flag-2",
            "-A -u 1.1.1.1:85 -s wlc -p 5 -M 255.255.255.0 -o -b flag-2",
        ),
    ] {
        let mut shell = Shell::new();
        assert_eq!(shell.run(&format!("ipvsadm {command}"), ""), Some(Outcome::default()), "{command}");
        assert_eq!(shell.run("ipvsadm -Sn", "").unwrap().out, format!("{saved}\n"), "{command}");
    }
}

#[test]
fn only_a_persistent_service_lists_its_engine() {
    let mut shell = Shell::new();
    for command in ["ipvsadm -A -t 1.1.1.1:1 --pe sip", "ipvsadm -A -u 1.1.1.1:2 --pe sip -p -o"] {
        assert_eq!(shell.run(command, ""), Some(Outcome::default()), "{command}");
    }
    let list = shell.run("ipvsadm -Ln", "").unwrap().out;
    assert!(list.ends_with("TCP  1.1.1.1:1 wlc\nUDP  1.1.1.1:2 wlc persistent 360 pe sip ops\n"), "{list}");
    assert_eq!(
        shell.run("ipvsadm -Sn", "").unwrap().out,
        "-A -t 1.1.1.1:1 -s wlc --pe sip\n-A -u 1.1.1.1:2 -s wlc -p 360 --pe sip -o\n"
    );
}

#[test]
fn a_destination_gets_the_services_port_unless_masqueraded() {
    for (command, port) in [
        ("-r 10.0.0.3:99", 80),
        ("-r 10.0.0.3 -m", 80),
        ("-r 10.0.0.3:99 -m", 99),
        ("-r 10.0.0.3:0 -m", 0),
        ("-r 10.0.0.3:99 -i", 80),
    ] {
        let mut shell = shell();
        let add = format!("ipvsadm -a -t 10.0.0.1:80 {command}");
        assert_eq!(shell.run(&add, ""), Some(Outcome::default()), "{command}");
        let list = shell.run("ipvsadm -Ln", "").unwrap().out;
        assert!(list.contains(&format!("  -> 10.0.0.3:{port} ")), "{command}: {list}");
    }
}

#[test]
fn restore_goes_on_after_what_the_table_refuses_and_ends_at_what_is_no_command() {
    const ADD: &str = "-A -t 1.1.1.1:2 -s rr\n";
    for (lines, code, err, added) in [
        (String::new(), 0, "", false),
        (format!("\n \t\r\n  ipvsadm ipvsadm {ADD}"), 0, "", true),
        (format!("ipvsadm\n{ADD}"), 0, "", true),
        (format!("-A -t 1.1.1.1:1 -Q\n{ADD}"), 0, "-Q: unknown option\n", true),
        (format!("-Z -t 1.1.1.1:1\n{ADD}"), 0, "No such service\n", true),
        (format!("{ADD}-D -t 1.1.1.1:1\n\n"), 255, "No such service\n", true),
        (format!("-L -t 1.1.1.1:1\n{ADD}"), 1, "No such service\n", false),
        (format!("foo {ADD}"), 2, "unexpected argument foo\n", false),
        (
            format!("-A -t \"1.1.1.1:1\"\n{ADD}"),
            2,
            "illegal virtual server address[:port] specified\n",
            false,
        ),
        (format!("-R\n{ADD}"), 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n", false),
        (
            format!("# no comment\n{ADD}"),
            255,
            "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n",
            false,
        ),
    ] {
        let mut shell = Shell::new();
        let outcome = shell.run("ipvsadm -R", &lines).unwrap();
        assert_eq!((outcome.code, outcome.err.as_str()), (code, err), "{lines:?}");
        assert_eq!(!shell.memory.services.is_empty(), added, "{lines:?}");
    }
}

#[test]
fn restore_refuses_a_line_without_end() {
    let outcome = Shell::new().run("ipvsadm -R", &"x".repeat(70_000)).unwrap();
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.starts_with("line of more than 65536 bytes"), "{}", outcome.err);
}

#[test]
fn a_table_survives_its_way_through_save_and_restore_in_one_pipe() {
    let mut shell = shell();
    assert_eq!(shell.run("ipvsadm-save -n | ipvsadm-restore", ""), Some(Outcome::default()));
    assert_eq!(shell.memory.services.len(), 1);
    assert_eq!(shell.run("ipvsadm-restore", "# only this\n-A -f 7\n"), Some(Outcome::default()));
    assert_eq!(shell.run("ipvsadm -S", "").unwrap().out, "-A -f 7 -s wlc\n");
}

#[test]
fn help_and_version_win_over_what_follows() {
    let mut shell = Shell::new();
    let help = shell.run("ipvsadm -h -Q", "").unwrap();
    assert!(help.code == 0 && help.err.is_empty());
    assert!(help.out.starts_with("ipvsadm v1.31") && help.out.contains("--add-service"), "{}", help.out);
    assert_eq!(shell.run("ipvsadm -v extra", "").unwrap().out.lines().count(), 1);
}

#[test]
fn daemons_are_listed_the_master_first() {
    let mut shell = Shell::new();
    for command in [
        "ipvsadm --start-daemon backup --mcast-interface lo --syncid 010",
        "ipvsadm --start-daemon=master --mcast-group ff02::51 --mcast-port 9000 --mcast-ttl 255 --sync-maxlen 1400",
    ] {
        assert_eq!(shell.run(command, ""), Some(Outcome::default()), "{command}");
    }
    assert_eq!(
        shell.run("ipvsadm -L --daemon", "").unwrap().out,
        "master sync daemon (mcast=eth0, syncid=0, maxlen=1400, group=ff02::51, port=9000, ttl=255)\n\
         backup sync daemon (mcast=lo, syncid=10, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
    );
}

//! What `xlvs adm` has and ipvsadm hasn't: `--json`, `--full`, words for all that a table can have, and remarks.

use serde_json::{Value, json};
use xlvs_control::adm::model::{ConnectionRow, Origin, ServiceId, Traffic};
use xlvs_dataplane::flow::Protocol;

use crate::memory::{Live, counters};
use crate::shell::{Outcome, Shell};

/// A table made by these command lines.
fn shell(lines: &[&str]) -> Shell {
    let mut shell = Shell::new();
    for line in lines {
        assert_eq!(shell.run(&format!("ipvsadm {line}"), ""), Some(Outcome::default()), "{line}");
    }
    shell
}

/// The document that a list is.
fn document(shell: &mut Shell, words: &str) -> Value {
    let Outcome { code, out, err } = shell.own(words, "");
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1), "{words}: {out}");
    serde_json::from_str(&out).unwrap()
}

fn nothing() -> Value {
    let counters =
        json!({"connections": 0, "in_packets": 0, "out_packets": 0, "in_bytes": 0, "out_bytes": 0});
    let mut statistics = counters.clone();
    statistics["rates"] = counters;
    statistics
}

#[test]
fn services_as_json_have_all_there_is_of_them() {
    let mut shell = shell(&[
        "-A -t 10.0.0.1:80 -s sh -b sh-port,flag-1 -p 600 -M 255.255.255.0 --pe sip",
        "-a -t 10.0.0.1:80 -r 10.0.0.3 -g -w 0 -x 100 -y 50",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m",
        "-A -u [fd00::1]:53 -s rr -o",
        "-a -u [fd00::1]:53 -r fd00::2 -i --tun-type gue --tun-port 5555 --tun-remcsum",
        "-a -u [fd00::1]:53 -r 10.0.0.9 -i --tun-type gre --tun-csum",
        "-A -f 4294967295 -6 -s twos -p -M 64",
    ]);
    let destination = |address: &str, port: u16, others: Value| {
        let mut whole = json!({
            "address": address, "port": port, "forwarding": "route", "tunnel": null, "weight": 1, "upper_threshold": 0,
            "lower_threshold": 0, "active": 0, "inactive": 0, "persistent": 0, "statistics": nothing(),
        });
        whole.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        whole
    };
    let expected = json!({"services": [
        {
            "protocol": "tcp", "address": "10.0.0.1", "port": 80, "mark": null, "family": "ipv4", "scheduler": "sh",
            "scheduler_flags": ["sh-fallback", "sh-port"],
            "persistence": {"timeout_s": 600, "netmask": "255.255.255.0", "prefix": null, "engine": "sip"},
            "one_packet": false, "statistics": nothing(),
            "destinations": [
                destination("10.0.0.2", 8080, json!({"forwarding": "masquerade"})),
                destination("10.0.0.3", 80, json!({"weight": 0, "upper_threshold": 100, "lower_threshold": 50})),
            ],
        },
        {
            "protocol": "udp", "address": "fd00::1", "port": 53, "mark": null, "family": "ipv6", "scheduler": "rr",
            "scheduler_flags": [], "persistence": null, "one_packet": true, "statistics": nothing(),
            "destinations": [
                destination("fd00::2", 53, json!({
                    "forwarding": "tunnel", "tunnel": {"type": "gue", "port": 5555, "checksum": "remote"},
                })),
                destination("10.0.0.9", 53, json!({
                    "forwarding": "tunnel", "tunnel": {"type": "gre", "port": null, "checksum": "full"},
                })),
            ],
        },
        {
            "protocol": null, "address": null, "port": null, "mark": 4_294_967_295_u32, "family": "ipv6",
            "scheduler": "twos", "scheduler_flags": [],
            "persistence": {"timeout_s": 360, "netmask": null, "prefix": 64, "engine": null},
            "one_packet": false, "statistics": nothing(), "destinations": [],
        },
    ]});
    // The mark's sign decides its place, as in text.
    let sorted = |mut document: Value| {
        document["services"].as_array_mut().unwrap().sort_by_key(|service| service["mark"] != Value::Null);
        document
    };
    for words in [
        "-L --json",
        "-Ln --json",
        "-l --stats --json",
        "-L --rate --json --exact",
        "-L --thresholds --json",
        "-L --persistent-conn --json",
        "-L --tun-info --json",
    ] {
        assert_eq!(sorted(document(&mut shell, words)), expected, "{words}");
    }
    let one = document(&mut shell, "-L -u [fd00::1]:53 --json");
    assert_eq!(one["services"], json!([expected["services"][1]]));
}

#[test]
fn traffic_and_connections_as_json_are_exact() {
    let mut shell = shell(&["-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 10.0.0.2", "--set 0 0 77"]);
    let id = ServiceId::Address { protocol: Protocol::Tcp, address: "10.0.0.1:80".parse().unwrap() };
    let large = u64::from(u32::MAX) * 1000;
    let traffic = Traffic { counters: counters([1, 2, 3, large, 5]), rates: counters([6, 7, 8, 9, 10]) };
    let service = shell.memory.find(id).unwrap();
    (service.traffic, service.destinations[0].traffic) = (traffic, traffic);
    let live = |protocol, [client, virtual_address, destination]: [&str; 3], state, engine| Live {
        service: id,
        destination: "10.0.0.2:80".parse().unwrap(),
        row: ConnectionRow {
            protocol,
            client: client.parse().unwrap(),
            virtual_address: virtual_address.parse().unwrap(),
            destination: destination.parse().unwrap(),
            state,
            expires_s: 899,
            origin: Origin::Local,
            engine,
        },
    };
    let ends = ["192.0.2.1:40000", "10.0.0.1:80", "10.0.0.2:80"];
    let template = ["[2001:db8::1]:0", "[::7]:0", "[fd00::2]:0"];
    let sip = Some(("sip".to_owned(), "call\"1".to_owned()));
    shell.memory.connections =
        vec![live(Some(Protocol::Tcp), ends, "ESTABLISHED", None), live(None, template, "NONE", sip)];

    let services = document(&mut shell, "-L --json --nosort");
    let counted = json!({
        "connections": 1, "in_packets": 2, "out_packets": 3, "in_bytes": large, "out_bytes": 5,
        "rates": {"connections": 6, "in_packets": 7, "out_packets": 8, "in_bytes": 9, "out_bytes": 10},
    });
    assert_eq!(services["services"][0]["statistics"], counted);
    let destination = &services["services"][0]["destinations"][0];
    assert_eq!(destination["statistics"], counted);
    let counts = ["active", "inactive", "persistent"].map(|count| destination[count].clone());
    assert_eq!(counts, [json!(1), json!(0), json!(1)]);

    let expected = json!({"connections": [
        {
            "protocol": "tcp", "client": {"address": "192.0.2.1", "port": 40000},
            "virtual": {"address": "10.0.0.1", "port": 80}, "destination": {"address": "10.0.0.2", "port": 80},
            "state": "ESTABLISHED", "expires_s": 899, "engine": null,
        },
        {
            "protocol": null, "client": {"address": "2001:db8::1", "port": 0},
            "virtual": {"address": "::7", "port": 0}, "destination": {"address": "fd00::2", "port": 0},
            "state": "NONE", "expires_s": 899, "engine": {"name": "sip", "data": "call\"1"},
        },
    ]});
    for words in ["-L -c --json", "-lcn --json --persistent-conn"] {
        assert_eq!(document(&mut shell, words), expected, "{words}");
    }
    assert_eq!(
        document(&mut shell, "-L --timeout --json"),
        json!({"timeouts": {"tcp_s": 900, "tcp_fin_s": 120, "udp_s": 77}})
    );
}

#[test]
fn empty_lists_and_daemons_are_json_too() {
    let mut shell = Shell::new();
    assert_eq!(document(&mut shell, "-L --json"), json!({"services": []}));
    assert_eq!(document(&mut shell, "-L -c --json"), json!({"connections": []}));
    assert_eq!(document(&mut shell, "-L --daemon --json"), json!({"daemons": []}));
    for role in ["backup", "master"] {
        assert_eq!(shell.run(&format!("ipvsadm --start-daemon {role}"), ""), Some(Outcome::default()));
    }
    let daemon = |role: &str| {
        json!({
            "role": role, "interface": "eth0", "sync_id": 0, "max_length": 1472, "group": "224.0.0.81", "port": 8848,
            "ttl": 1,
        })
    };
    let expected = json!({"daemons": [daemon("master"), daemon("backup")]});
    assert_eq!(document(&mut shell, "-L --daemon --json"), expected);
}

#[test]
fn our_own_words_are_refused_where_they_mean_nothing() {
    for (words, code, err) in [
        ("-A -t 10.0.0.1:80 --json", 2, "Illegal 'json' option with the 'add-service' command"),
        ("-S --json", 2, "Illegal 'json' option with the 'save' command"),
        ("-C --json", 2, "Illegal 'json' option with the 'flush' command"),
        ("-L --json --json", 2, "multiple 'json' options specified"),
        ("-L --full", 2, "Illegal 'full' option with the 'list' command"),
        ("-R --full", 2, "Illegal 'full' option with the 'restore' command"),
        ("-L --json=5", 255, "--json=5: option does not take an argument"),
        ("-L -t 10.0.0.1:80 --json", 1, "No such service"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2 -g --local", 2, "multiple 'forwarding-method' options specified"),
        ("--json", 255, "Try `xlvs adm -h' or 'xlvs adm --help' for more information."),
        ("-A -f -1", 2, "invalid fwmark value `-1' specified"),
    ] {
        let outcome = Shell::new().own(words, "");
        let expected = Outcome { code, out: String::new(), err: format!("{err}\n") };
        assert_eq!(outcome, expected, "{words}");
    }
}

#[test]
fn a_full_save_is_ipvsadms_but_for_what_that_has_no_words_for() {
    let lines = [
        "-A -t 10.0.0.1:80 -s mh -b mh-port,flag-3",
        "-a -t 10.0.0.1:80 -r 10.0.0.3:80 -g -w 1 -x 100 -y 50",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -g -w 1 --full",
        "-a -t 10.0.0.1:80 -r 10.0.0.4:80 --local -w 1",
        "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1 --tun-type ipip -x 7",
        "-A -t 10.0.0.1:0 -s rr -M 255.255.0.0 -o --full",
        "-A -f 4294967295 -6 -s rr",
    ];
    let mut shell = shell(&lines);
    let saved = shell.run("ipvsadm-save --full", "").unwrap().out;
    assert_eq!(saved.lines().collect::<Vec<_>>(), lines);
    assert_eq!(shell.run("ipvsadm -S -n --full", "").unwrap().out, saved);
    let original = shell.run("ipvsadm -S -n", "").unwrap().out;
    assert_eq!(
        original.lines().collect::<Vec<_>>(),
        [
            "-A -f -1 -6 -s rr",
            "-A -t 10.0.0.1:0 -s rr -o",
            "-A -t 10.0.0.1:80 -s mh -b mh-port",
            "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -g -w 1",
            "-a -t 10.0.0.1:80 -r 10.0.0.3:80 -g -w 1",
            "-a -t 10.0.0.1:80 -r 10.0.0.4:80 -g -w 1",
            "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1 --tun-type ipip",
        ]
    );
}

#[test]
fn restore_takes_marks_as_the_original_wrote_them() {
    let mut shell = Shell::new();
    let lines = "-A -f -1 -s rr\n-a -f -1 -r 10.0.0.2:0 -g -w 1\n-A -f -2147483648 -6 -s rr\n";
    assert_eq!(shell.run("ipvsadm -R", lines), Some(Outcome::default()));
    let marks = document(&mut shell, "-L --json")["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["mark"].as_u64().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(marks, [1 << 31, u64::from(u32::MAX)]);
    assert_eq!(shell.run("ipvsadm -S -n", "").unwrap().out.lines().count(), 3);
    for mark in ["-2147483649", "0", "-0", "4294967296"] {
        let outcome = shell.run("ipvsadm -R", &format!("-A -f {mark}\n")).unwrap();
        assert_eq!(
            (outcome.code, outcome.err),
            (2, format!("invalid fwmark value `{mark}' specified\n")),
            "{mark}"
        );
    }
}

#[test]
fn only_xlvs_adm_remarks_on_destinations_that_get_no_connections() {
    let service = "-A -t 10.0.0.1:80";
    let add = "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m";
    let remark = "xlvs adm: 10.0.0.2:8080 is kept and listed, but gets no connections: it is reached by address translation \
                  (-m), and the director forwards by direct routing (-g) only\n";
    let mut as_itself = shell(&[service]);
    let Outcome { code, out, err } = as_itself.own(add, "");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", remark));
    let _ = shell(&[service, add]);
    // Refused: there is nothing to remark on. So is there with direct routing.
    assert_eq!(as_itself.own(add, "").err, "Destination already exists\n");
    assert_eq!(as_itself.own("-e -t 10.0.0.1:80 -r 10.0.0.2 -i -w 0", "").err, "No such destination\n");
    assert_eq!(as_itself.own("-a -t 10.0.0.1:80 -r 10.0.0.3", ""), Outcome::default());
    // One line for all the lines of a restore, after what they say themselves.
    let lines =
        format!("{service}\n{add}\n{add}\n-a -t 10.0.0.1:80 -r 10.0.0.2 -i\n-a -t 10.0.0.1:80 -r 10.0.0.4\n");
    let outcome = Shell::new().own("-R", &lines);
    assert_eq!(outcome.code, 0);
    let said: Vec<&str> = outcome.err.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], "Destination already exists");
    assert!(
        said[1].starts_with("xlvs adm: 10.0.0.2:8080 is kept and listed, and so are 1 more like it,"),
        "{said:?}"
    );
}

//! `[[mark]]`: what rules are taken, refused and warned of.

use super::*;

/// A file with these keys in a `[[mark]]` of mark 1, which a service of each family has.
fn file(keys: &str) -> String {
    format!(
        "director.interface = \"eth0\"\n[[mark]]\nmark = 1\n{keys}\n[[service]]\nmark = 1\ndestination = []\n\
         [[service]]\nmark = 1\nfamily = \"ipv6\"\ndestination = []\n[[mark]]\nmark = 1\ndestination = \"192.0.2.1\"\n\
         [[mark]]\nmark = 1\ndestination = \"2001:db8::1\"\n"
    )
}

#[test]
fn a_wrong_rule_is_told_with_what_is_allowed() {
    let prefix = "a unicast IPv4 or IPv6 address, or a prefix such as 198.51.100.0/24 or 2001:db8::/64";
    let port = "a port from 0 to 65535, or a range such as \"8000-8999\"";
    let mut cases = vec![
        (
            "destination = \"10.0.0.1\"\nprotocol = \"icmp\"".to_owned(),
            "f:5:12: mark.protocol: found \"icmp\", allowed: \"tcp\", \"udp\" or \"sctp\"".to_owned(),
        ),
        (String::new(), format!("f:2:1: mark.destination: found nothing, allowed: {prefix}")),
        (
            "destination = 7".to_owned(),
            format!("f:4:15: mark.destination: found 7 (integer), allowed: {prefix}"),
        ),
        (
            "destination = \"10.0.0.1\"\nsource = \"2001:db8::/32\"".to_owned(),
            "f:5:10: mark.source: found 2001:db8::/32, allowed: an IPv4 address or prefix, as the destination's (line 4)"
                .to_owned(),
        ),
        (
            "destination = \"2001:db8::/32\"\nsource = \"10.0.0.1\"".to_owned(),
            "f:5:10: mark.source: found 10.0.0.1, allowed: an IPv6 address or prefix, as the destination's (line 4)"
                .to_owned(),
        ),
        (
            "destination = \"10.0.0.1\"\ninterface = \"eth9\"".to_owned(),
            "f:5:13: mark.interface: found eth9, allowed: an interface of the director: eth0".to_owned(),
        ),
        (
            "destination = \"10.0.0.1\"\nports = 80".to_owned(),
            format!("f:5:9: mark.ports: found 80 (integer), allowed: a list, each {port}"),
        ),
        (
            "destination = \"10.0.0.1\"\nports = []".to_owned(),
            format!("f:5:9: mark.ports: found [] (0 values), allowed: 1 to 1024 values, each {port}"),
        ),
        (
            format!("destination = \"10.0.0.1\"\nports = {:?}", vec![1; 1025]),
            format!(
                "f:5:9: mark.ports: found [{}… (1025 values), allowed: 1 to 1024 values, each {port}",
                "1, ".repeat(20).get(..59).unwrap()
            ),
        ),
        (
            "destination = \"10.0.0.1\"\nports = [2, 65536, \"9-8\", true]".to_owned(),
            format!(
                "f:5:13: mark.ports: found 65536, allowed: {port}\n\
                 f:5:20: mark.ports: found \"9-8\" (the first above the last), allowed: {port}\n\
                 f:5:27: mark.ports: found true (boolean), allowed: {port}"
            ),
        ),
    ];
    for wrong in ["", "80", "-", "1-", "-1", "1-2-3", "+1-2", "1 - 2", "1-65536"] {
        cases.push((
            format!("destination = \"10.0.0.1\"\nports = [\"{wrong}\"]"),
            format!("f:5:10: mark.ports: found \"{wrong}\", allowed: {port}"),
        ));
    }
    for (wrong, why) in [
        ("10.0.0.256/24", "no address"),
        ("10.0.0/24", "no address"),
        ("10.0.0.0/33", "too long a prefix"),
        ("2001:db8::/129", "too long a prefix"),
        ("10.0.0.0/", "no prefix length"),
        ("10.0.0.0/+8", "no prefix length"),
        ("10.0.0.0/255.0.0.0", "no prefix length"),
        ("fe80::%eth0/64", "with a zone"),
        ("::ffff:10.0.0.0/104", "IPv4 addresses mapped to IPv6"),
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.1/32", "a multicast address"),
    ] {
        for key in ["destination", "source"] {
            let rest = if key == "source" { "\ndestination = \"10.0.0.1\"" } else { "" };
            cases.push((
                format!("{key} = \"{wrong}\"{rest}"),
                format!("f:4:{}: mark.{key}: found \"{wrong}\" ({why}), allowed: {prefix}", key.len() + 4),
            ));
        }
    }
    for (keys, expected) in cases {
        assert_eq!(errors(&file(&keys)), expected, "{keys}");
    }
    for mark in ["0", "4294967296", "-1"] {
        let found = errors(&file("").replace(
            "[[mark]]\nmark = 1\n\n",
            &format!("[[mark]]\nmark = {mark}\ndestination = \"::/0\"\n"),
        ));
        assert_eq!(
            found,
            format!("f:3:8: mark.mark: found {mark}, allowed: a whole number from 1 to 4294967295")
        );
    }
}

#[test]
fn prefixes_ports_and_the_order_of_rules_are_kept() {
    let text = "director.interface = \"e\"\nservice = [{ mark = 2, destination = [] }, { mark = 2, family = \"ipv6\", destination = [] }]\n\
                mark = [{ mark = 2, destination = \"0.0.0.0/0\", ports = [0, \"0-65535\", \"7-7\"] }, { mark = 2, destination = \"::/0\" },\n\
                { mark = 2, destination = \"10.1.2.3/8\", source = \"192.0.2.9/31\", protocol = \"udp\" }]\n";
    let configuration = read(text).unwrap();
    let shown: Vec<String> = configuration
        .marks
        .iter()
        .map(|rule| {
            format!("{} {:?} {:?}", rule.destination, rule.ports, rule.source.map(|net| net.to_string()))
        })
        .collect();
    let expected = [
        "0.0.0.0/0 [(0, 0), (0, 65535), (7, 7)] None",
        "::/0 [] None",
        "10.0.0.0/8 [] Some(\"192.0.2.8/31\")",
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        configuration.warnings,
        [
            "f:4:27: mark.destination: found 10.1.2.3/8, which has bits behind its prefix: taken as 10.0.0.0/8",
            "f:4:50: mark.source: found 192.0.2.9/31, which has bits behind its prefix: taken as 192.0.2.8/31",
        ]
    );
}

#[test]
fn a_rules_interface_is_one_of_the_command_lines_if_that_names_some() {
    let text = "director.interface = \"a\"\nservice = [{ mark = 1, destination = [] }]\n\
                mark = [{ mark = 1, destination = \"192.0.2.1\", interface = \"a\" }]\n";
    assert_eq!(read(text).unwrap().marks[0].interface, Some("a".parse().unwrap()));
    let names = |names: &[&str]| Overrides {
        interfaces: names.iter().map(|name| name.parse().unwrap()).collect(),
        ..Overrides::default()
    };
    assert_eq!(
        parse("f", text, &names(&["b", "c"])).unwrap_err().to_string(),
        "f:3:60: mark.interface: found a, allowed: an interface of the director: b, c"
    );
    assert!(parse("f", text, &names(&["b", "a"])).is_ok());
    // What the director's interfaces are is not known: that is the only error.
    assert_eq!(errors(&text.replace("= \"a\"\ns", "= 1\ns")).lines().count(), 1);
}

#[test]
fn so_many_rules_are_taken_and_no_more() {
    let rules = |count| {
        let mut text = String::from("director.interface = \"a\"\n[[service]]\nmark = 1\ndestination = []\n");
        for index in 0..count {
            text += &format!("[[mark]]\nmark = 1\ndestination = \"10.0.0.0/8\"\nports = [{index}]\n");
        }
        text
    };
    assert_eq!(read(&rules(4096)).unwrap().marks.len(), 4096);
    assert_eq!(
        errors(&rules(4098)),
        format!("f:{}:1: mark: found 4098 rules, allowed: at most 4096", 5 + 4 * 4096)
    );
}

#[test]
fn a_mark_that_only_one_side_knows_is_a_warning() {
    let text = "director.interface = \"a\"\nmark = [\n{ mark = 1, destination = \"192.0.2.1\" },\n{ mark = 2, destination = \"192.0.2.1\" },\n\
                { mark = 3, destination = \"2001:db8::1\" }]\nservice = [\n{ mark = 1, destination = [] },\n{ mark = 3, destination = [] },\n\
                { mark = 2, family = \"ipv6\", destination = [] },\n{ mark = 9, destination = [] }]\n";
    assert_eq!(
        read(text).unwrap().warnings,
        [
            "f:8:10: service.mark: found 3, which no [[mark]] puts on IPv4 packets: none comes here",
            "f:9:10: service.mark: found 2, which no [[mark]] puts on IPv6 packets: none comes here",
            "f:10:10: service.mark: found 9, which no [[mark]] puts on IPv4 packets: none comes here",
            "f:4:10: mark.mark: found 2, which no [[service]] has for IPv4: the rule has no effect",
            "f:5:10: mark.mark: found 3, which no [[service]] has for IPv6: the rule has no effect",
        ]
    );
}

/// Which marks the host's own rules set is not known to who reads the file.
#[test]
fn with_the_hosts_rules_a_mark_without_a_rule_is_no_mistake() {
    let text = |source| {
        format!(
            "director.interface = \"eth0\"\ndirector.marks = \"{source}\"\n[[service]]\nmark = 1\ndestination = [{{ address = \"10.0.0.1\" }}]"
        )
    };
    let unpaired = "f:4:8: service.mark: found 1, which no [[mark]] puts on IPv4 packets: none comes here";
    assert_eq!(read(&text("file")).unwrap().warnings, [unpaired]);
    assert_eq!(read(&text("iptables")).unwrap().warnings, Vec::<String>::new());
    assert_eq!(
        errors(&text("nft")),
        "f:2:18: director.marks: found \"nft\", allowed: \"file\" or \"iptables\""
    );
}

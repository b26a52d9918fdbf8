//! `[settings]`, and what names a `[[service]]` and treats its clients.

use xlvs_dataplane::flow::Family;

use super::*;

/// A file with these keys in a `[[service]]`, from line 4 on. Mark 1 is put on packets of both families.
fn file(keys: &str) -> String {
    let rules = "mark = [{ mark = 1, destination = \"10.0.0.1\" }, { mark = 1, destination = \"fd00::1\" }]";
    format!("{rules}\ndirector.interface = \"a\"\n[[service]]\n{keys}\n")
}

const ADDRESS: &str = "address = \"192.0.2.1\"\nport = 80\ndestination = []";
const ADDRESS_V6: &str = "address = \"2001:db8::1\"\nport = 80\ndestination = []";

#[test]
fn a_setting_is_a_number_within_its_bounds_or_a_truth() {
    for &(name, smallest, largest) in Settings::BOUNDS {
        let of = |value: &str| read(&format!("director.interface = \"a\"\n[settings]\n{name} = {value}\n"));
        for value in [smallest, largest] {
            assert_eq!(of(&value.to_string()).unwrap().settings.get(name), Some(value), "{name}");
        }
        let truth = largest == 1;
        let allowed = if truth {
            "true or false, or 1 or 0".to_owned()
        } else {
            format!("a whole number from {smallest} to {largest}")
        };
        let place = format!("f:3:{}: settings.{name}", name.len() + 4);
        let above = u64::from(largest) + 1;
        assert_eq!(
            of(&above.to_string()).unwrap_err().to_string(),
            format!("{place}: found {above}, allowed: {allowed}")
        );
        if truth {
            assert_eq!(of("true").unwrap().settings.get(name), Some(1), "{name}");
            assert_eq!(of("false").unwrap().settings.get(name), Some(0), "{name}");
        } else {
            assert_eq!(
                of("true").unwrap_err().to_string(),
                format!("{place}: found true (boolean), allowed: {allowed}")
            );
        }
    }
    let unknown = errors("director.interface = \"a\"\n[settings]\nnat_icmp_send = 1\n");
    assert!(
        unknown.starts_with("f:3:1: settings.nat_icmp_send: found an unknown key, allowed: am_droprate, ")
    );
    assert!(read("director.interface = \"a\"\n[settings]\n").unwrap().settings == Settings::default());
}

#[test]
fn a_service_has_an_address_or_a_mark() {
    let either = "allowed: either address and port, or mark";
    let port = "a whole number from 1 to 65535, or 0 (all ports) with persistent_s";
    let cases = [
        ("destination = []", format!("f:3:1: service: found neither address nor mark, {either}")),
        ("protocol = \"udp\"\ndestination = []", format!("f:3:1: service: found neither address nor mark, {either}")),
        (
            "port = 80\ndestination = []",
            "f:3:1: service.address: found nothing, allowed: a unicast IPv4 or IPv6 address".to_owned(),
        ),
        (
            "address = \"192.0.2.1\"\ndestination = []",
            format!("f:3:1: service.port: found nothing, allowed: {port}"),
        ),
        (
            "address = \"192.0.2.1\"\nport = 70_000\ndestination = []",
            format!("f:5:8: service.port: found 70_000, allowed: {port}"),
        ),
        (
            "address = \"192.0.2.1\"\nport = 0\ndestination = []",
            format!("f:5:8: service.port: found 0 without persistent_s, allowed: {port}"),
        ),
        (
            "mark = 1\naddress = \"192.0.2.1\"\nport = 80\nprotocol = \"tcp\"\ndestination = []",
            format!(
                "f:5:11: service.address: found beside mark (line 4), {either}\n\
                 f:6:8: service.port: found beside mark (line 4), {either}\n\
                 f:7:12: service.protocol: found beside mark (line 4), {either}"
            ),
        ),
        (
            "mark = 0\nport = \"x\"\ndestination = []",
            format!(
                "f:4:8: service.mark: found 0, allowed: a whole number from 1 to 4294967295\n\
                 f:5:8: service.port: found \"x\" (string), allowed: {port}\n\
                 f:5:8: service.port: found beside mark (line 4), {either}"
            ),
        ),
        (
            "address = \"192.0.2.1\"\nport = 80\nfamily = \"ipv6\"\ndestination = []",
            "f:6:10: service.family: found without mark, allowed: only with one (an address tells its family)"
                .to_owned(),
        ),
        (
            "mark = 1\nfamily = \"inet6\"\ndestination = [{ address = \"fd00::1\" }]",
            "f:5:10: service.family: found \"inet6\", allowed: \"ipv4\" or \"ipv6\"".to_owned(),
        ),
        (
            "mark = 1\ndestination = []\n[[service]]\nmark = 1\nfamily = \"ipv6\"\ndestination = []\n[[service]]\nmark = 1\nfamily = \"ipv4\"\ndestination = []",
            "f:10:1: service: found mark 1 a second time, allowed: once (it is in line 3)".to_owned(),
        ),
        (
            "mark = 1\nfamily = \"ipv6\"\ndestination = []\n[[service]]\nmark = 1\nfamily = \"ipv6\"\ndestination = []",
            "f:7:1: service: found mark 1 (IPv6) a second time, allowed: once (it is in line 3)".to_owned(),
        ),
        (
            "mark = 1\ndestination = [{ address = \"fd00::2\" }]",
            "f:5:28: service.destination.address: found fd00::2, allowed: an IPv4 address, unless the service has family = \"ipv6\""
                .to_owned(),
        ),
        (
            "mark = 1\nfamily = \"ipv6\"\ndestination = [{ address = \"10.0.0.2\" }]",
            "f:6:28: service.destination.address: found 10.0.0.2, allowed: an IPv6 address, as the service's (line 5)"
                .to_owned(),
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(errors(&file(keys)), expected, "{keys}");
    }

    // All that a mark's service is made of; a rule's destination may be a real server of it.
    let configuration = read(&file(
        "mark = 1\ndestination = [{ address = \"10.0.0.1\" }]\n[[service]]\nmark = 1\nfamily = \"ipv6\"\ndestination = []\n\
         [[service]]\naddress = \"192.0.2.1\"\nport = 0\npersistent_s = 1\nprotocol = \"sctp\"\ndestination = []",
    ))
    .unwrap();
    let mark = NonZeroU32::MIN;
    let keys: Vec<ServiceKey> = configuration.services.iter().map(|service| service.key).collect();
    assert_eq!(
        keys,
        [
            ServiceKey::Mark { family: Family::V4, mark },
            ServiceKey::Mark { family: Family::V6, mark },
            ServiceKey::Address { protocol: Protocol::Sctp, address: "192.0.2.1:0".parse().unwrap() },
        ]
    );
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
}

#[test]
fn persistence_has_the_granularity_of_its_family() {
    let granularity = |keys: &str| {
        let configuration = read(&file(&format!("{keys}\npersistent_s = 50"))).unwrap();
        let persistence = configuration.services[0].persistence.unwrap();
        assert_eq!(persistence.timeout, Duration::from_secs(50));
        // Line 1 has rules that the services of an address have no use for.
        let of_service = |warning: &String| !warning.starts_with("f:1:");
        (persistence.granularity, configuration.warnings.into_iter().filter(of_service).collect::<Vec<_>>())
    };
    let v4 = |mask: &str| (Granularity::V4(mask.parse().unwrap()), Vec::new());
    let v6 = |length| (Granularity::V6(length), Vec::new());
    let mark = "mark = 1\ndestination = []";
    let mark_v6 = "mark = 1\nfamily = \"ipv6\"\ndestination = []";
    for (service, mask, expected) in [
        (ADDRESS, "", v4("255.255.255.255")),
        (ADDRESS, "persistence_mask = \"255.255.255.0\"", v4("255.255.255.0")),
        (ADDRESS, "persistence_mask = \"0.0.0.0\"", v4("0.0.0.0")),
        (ADDRESS, "persistence_mask = 20", v4("255.255.240.0")),
        (ADDRESS, "persistence_mask = 0", v4("0.0.0.0")),
        (mark, "", v4("255.255.255.255")),
        (mark, "persistence_mask = 32", v4("255.255.255.255")),
        (ADDRESS_V6, "", v6(128)),
        (ADDRESS_V6, "persistence_mask = 0", v6(0)),
        (mark_v6, "", v6(128)),
        (mark_v6, "persistence_mask = 64", v6(64)),
    ] {
        assert_eq!(granularity(&format!("{service}\n{mask}")), expected, "{service} {mask}");
    }
    let (odd, warnings) = granularity(&format!("{ADDRESS}\npersistence_mask = \"255.0.255.1\""));
    assert_eq!(odd, Granularity::V4("255.0.255.1".parse().unwrap()));
    assert_eq!(
        warnings,
        [
            "f:7:20: service.persistence_mask: found 255.0.255.1, whose ones are not all in front: clients count as one that agree in just these bits"
        ]
    );

    let form = "an IPv4 netmask such as \"255.255.255.0\", or a prefix length from 0 to 128";
    let netmask = "a netmask such as \"255.255.255.0\", or a prefix length from 0 to 32";
    for (service, keys, expected) in [
        (ADDRESS, "persistent_s = 0", "f:7:16: service.persistent_s: found 0, allowed: a whole number from 1 to 2678400".to_owned()),
        (ADDRESS, "persistent_s = 2678401", "f:7:16: service.persistent_s: found 2678401, allowed: a whole number from 1 to 2678400".to_owned()),
        (ADDRESS, "persistence_mask = 24", "f:7:20: service.persistence_mask: found without persistent_s, allowed: only with it".to_owned()),
        (ADDRESS, "persistence_mask = 129\npersistent_s = 1", format!("f:7:20: service.persistence_mask: found 129, allowed: {form}")),
        (ADDRESS, "persistence_mask = \"/24\"\npersistent_s = 1", format!("f:7:20: service.persistence_mask: found \"/24\", allowed: {form}")),
        (ADDRESS, "persistence_mask = true\npersistent_s = 1", format!("f:7:20: service.persistence_mask: found true (boolean), allowed: {form}")),
        (ADDRESS, "persistence_mask = 33\npersistent_s = 1", format!("f:7:20: service.persistence_mask: found 33 for IPv4 clients, allowed: {netmask}")),
        (ADDRESS_V6, "persistence_mask = \"255.255.255.0\"\npersistent_s = 1", "f:7:20: service.persistence_mask: found 255.255.255.0 for IPv6 clients, allowed: a prefix length from 0 to 128".to_owned()),
        // A wrong persistent_s is not missing.
        ("address = \"192.0.2.1\"\nport = 0\ndestination = []", "persistence_mask = 3\npersistent_s = 0", "f:8:16: service.persistent_s: found 0, allowed: a whole number from 1 to 2678400".to_owned()),
    ] {
        assert_eq!(errors(&file(&format!("{service}\n{keys}"))), expected, "{service} {keys}");
    }
}

#[test]
fn what_only_some_services_can_have_is_refused_to_others() {
    let only = "allowed: only for wrr, wlc, sed, nq or twos, which go by the ratio of weights";
    for (keys, expected) in [
        (
            "one_packet = true".to_owned(),
            "f:7:14: service.one_packet: found true for tcp, allowed: only for udp or with mark".to_owned(),
        ),
        (
            "protocol = \"sctp\"\none_packet = true".to_owned(),
            "f:8:14: service.one_packet: found true for sctp, allowed: only for udp or with mark".to_owned(),
        ),
        (
            "one_packet = 1".to_owned(),
            "f:7:14: service.one_packet: found 1 (integer), allowed: true or false".to_owned(),
        ),
        (
            "drain = \"rst\"".to_owned(),
            "f:7:9: service.drain: found \"rst\", allowed: \"finish\", \"drop\" or \"reset\"".to_owned(),
        ),
        (
            "slow_start_s = 0".to_owned(),
            "f:7:16: service.slow_start_s: found 0, allowed: a whole number from 1 to 86400".to_owned(),
        ),
        (
            "slow_start_s = 86401".to_owned(),
            "f:7:16: service.slow_start_s: found 86401, allowed: a whole number from 1 to 86400".to_owned(),
        ),
    ] {
        assert_eq!(errors(&file(&format!("{ADDRESS}\n{keys}"))), expected, "{keys}");
    }
    for scheduler in SchedulerName::ALL {
        let keys = format!("{ADDRESS}\nscheduler = \"{scheduler}\"\nslow_start_s = 60");
        match read(&file(&keys)) {
            Ok(configuration) => {
                assert!(["wrr", "wlc", "sed", "nq", "twos"].contains(&scheduler.name()), "{scheduler}");
                assert_eq!(configuration.services[0].slow_start, Some(Duration::from_mins(1)));
            }
            Err(errors) => assert_eq!(
                errors.to_string(),
                format!("f:8:16: service.slow_start_s: found for scheduler {scheduler}, {only}")
            ),
        }
    }
    for keys in ["one_packet = false", "protocol = \"udp\"\none_packet = true", "slow_start_s = 1"] {
        assert!(read(&file(&format!("{ADDRESS}\n{keys}"))).is_ok(), "{keys}");
    }
    let mark = read(&file("mark = 1\none_packet = true\ndestination = []")).unwrap();
    assert!(mark.services[0].one_packet);
}

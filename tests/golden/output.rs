//! Comparing what commands print.

use std::collections::BTreeMap;

/// Whether a command's output is the captured one. A hash table decides the kernel's order of services and connections, and a
/// second may have passed. Services named in `standing` served others before, and are not compared.
pub fn is_same(command: &str, expected: &str, got: &str, standing: &[String]) -> bool {
    if command.contains("-Lc") || command.contains("-lc") || command.contains("ip_vs_conn") {
        return same_connection_lists(expected, got);
    }
    let services = |text| {
        let mut services = sorted_services(text);
        services.retain(|lines| !lines.first().is_some_and(|name| is_standing(name, standing)));
        services
    };
    services(expected) == services(got)
}

/// Whether a line of /proc/net/ip_vs is a standing service's: `TCP  0A000064:0050 rr`.
fn is_standing(line: &str, standing: &[String]) -> bool {
    standing.iter().any(|name| line.split_whitespace().take(2).eq(name.split(' ')))
}

/// The lines of a list of services, each with its destinations, in one order.
fn sorted_services(text: &str) -> Vec<Vec<&str>> {
    let mut services: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        match services.last_mut() {
            Some(service) if line.starts_with("  ->") || line.starts_with("-a") => service.push(line),
            _ => services.push(vec![line]),
        }
    }
    for service in &mut services {
        service[1..].sort_unstable();
    }
    services.sort();
    services
}

/// Whether two lists of connections have the same lines, but for a second.
fn same_connection_lists(expected: &str, got: &str) -> bool {
    let read = |text: &str| -> BTreeMap<String, u64> {
        text.lines()
            .map(|line| {
                let mut words: Vec<&str> = line.split_whitespace().collect();
                let time = words.iter().position(|word| {
                    word.split_once(':').is_some_and(|(minutes, seconds)| {
                        minutes.len() == 2 && seconds.len() == 2 && minutes.parse::<u64>().is_ok()
                    })
                });
                let seconds = match time {
                    Some(at) => {
                        let (minutes, seconds) = words.remove(at).split_once(':').unwrap();
                        minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap_or(0)
                    }
                    // /proc/net/ip_vs_conn has it last.
                    None => words.pop().and_then(|word| word.parse().ok()).unwrap_or(0),
                };
                (words.join(" "), seconds)
            })
            .collect()
    };
    let (expected, got) = (read(expected), read(got));
    expected.len() == got.len()
        && expected.iter().all(|(line, seconds)| got.get(line).is_some_and(|its| its.abs_diff(*seconds) <= 1))
}

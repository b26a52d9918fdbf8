//! Configuration files for the daemon, written from what a test varies.

use crate::Lab;
use std::fmt::Write;
use std::net::IpAddr;

/// A virtual service and its destinations with their weights.
#[derive(Clone, Debug)]
pub struct Service {
    /// "tcp" or "udp".
    pub protocol: &'static str,
    /// The VIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// "rr" or "wrr".
    pub scheduler: &'static str,
    /// Destinations and weights.
    pub destinations: Vec<(IpAddr, u32)>,
    /// The firewall mark that it is a service of, instead of protocol, address and port (which then only name it in tests).
    pub mark: Option<u32>,
    /// More lines of it.
    pub lines: Vec<String>,
}

/// A configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lines of the table `[director]`.
    pub director: Vec<String>,
    /// The services.
    pub services: Vec<Service>,
    /// Whole tables besides.
    pub tables: Vec<String>,
}

impl Config {
    /// Port 80 of both VIPs, each over the named real servers with weight 1, on eth0.
    #[must_use]
    pub fn web(lab: &Lab, servers: &[&str]) -> Self {
        let v4 = Service::tcp(lab.v4("vip"), 80, servers.iter().map(|server| (lab.v4(server), 1)));
        let v6 = Service::tcp(lab.v6("vip"), 80, servers.iter().map(|server| (lab.v6(server), 1)));
        Self { services: vec![v4, v6], ..Self::empty() }
    }

    /// No service yet, on eth0: for tools to fill.
    #[must_use]
    pub fn empty() -> Self {
        Self { director: vec!["interface = \"eth0\"".to_owned()], services: Vec::new(), tables: Vec::new() }
    }

    /// One service on eth0.
    #[must_use]
    pub fn one(service: Service) -> Self {
        Self { services: vec![service], ..Self::empty() }
    }

    /// Sets the interfaces.
    #[must_use]
    pub fn interfaces(mut self, names: &[&str]) -> Self {
        self.director.retain(|line| !line.starts_with("interface"));
        self.director.push(format!("interfaces = {names:?}"));
        self
    }

    /// Adds a line to `[director]`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.director.push(line.to_owned());
        self
    }

    /// Adds a table, such as `[[mark]]` with its keys.
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        self.tables.push(table.to_owned());
        self
    }

    /// Gives a destination another weight in every service that has it.
    #[track_caller]
    pub fn weigh(&mut self, destination: IpAddr, weight: u32) {
        let all = self.services.iter_mut().flat_map(|service| &mut service.destinations);
        let mut found = 0;
        for entry in all.filter(|entry| entry.0 == destination) {
            entry.1 = weight;
            found += 1;
        }
        assert!(found > 0, "no destination {destination}");
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("[director]\n");
        for line in &self.director {
            writeln!(text, "{line}").unwrap();
        }
        for service in &self.services {
            let Service { protocol, address, port, scheduler, destinations, mark, lines } = service;
            match mark {
                Some(mark) => {
                    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                    writeln!(text, "\n[[service]]\nmark = {mark}\nfamily = \"{family}\"").unwrap();
                }
                None => {
                    writeln!(text, "\n[[service]]\naddress = \"{address}\"\nport = {port}").unwrap();
                    writeln!(text, "protocol = \"{protocol}\"").unwrap();
                }
            }
            writeln!(text, "scheduler = \"{scheduler}\"").unwrap();
            for line in lines {
                writeln!(text, "{line}").unwrap();
            }
            for (destination, weight) in destinations {
                writeln!(text, "[[service.destination]]\naddress = \"{destination}\"\nweight = {weight}")
                    .unwrap();
            }
        }
        for table in &self.tables {
            writeln!(text, "\n{table}").unwrap();
        }
        text
    }
}

impl Service {
    /// A TCP service scheduled by rr, so that tests know what comes next.
    #[must_use]
    pub fn tcp(address: IpAddr, port: u16, destinations: impl IntoIterator<Item = (IpAddr, u32)>) -> Self {
        Self {
            protocol: "tcp",
            address,
            port,
            scheduler: "rr",
            destinations: destinations.into_iter().collect(),
            mark: None,
            lines: Vec::new(),
        }
    }

    /// A service of a mark, over destinations of one family.
    #[must_use]
    pub fn mark(mark: u32, vip: IpAddr, destinations: impl IntoIterator<Item = (IpAddr, u32)>) -> Self {
        Self { mark: Some(mark), ..Self::tcp(vip, 0, destinations) }
    }

    /// Adds a line to it.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// A UDP service scheduled by rr.
    #[must_use]
    pub fn udp(address: IpAddr, port: u16, destinations: impl IntoIterator<Item = (IpAddr, u32)>) -> Self {
        Self { protocol: "udp", ..Self::tcp(address, port, destinations) }
    }
}

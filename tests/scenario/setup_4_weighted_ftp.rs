//! Set-up 4: two FTP servers, weighted 3 to 1. Banners tell which of them answers.
//!
//! ```text
//!   10.83.33.0/24
//!   client .7 ── bridge ── director .83   VIP .100
//!                    ├──── rs1 .76   weight 3   vsftpd
//!                    └──── rs2 .2    weight 1   vsftpd
//! ```
//! Without persistence each connection is scheduled by itself: what is shared out are control connections.

use std::collections::BTreeMap;
use std::time::Duration;

use xlvs_tests::ftp::{self, Ftp};
use xlvs_tests::{Config, Daemon, Lab, within};

const PLAN: &str = "
    client   eth0 lan 10.83.33.7/24
    director eth0 lan 10.83.33.83/24
    rs1      eth0 lan 10.83.33.76/24
    rs2      eth0 lan 10.83.33.2/24
    vip 10.83.33.100
";

/// The operator's lines.
const SERVICE: [&str; 3] = [
    "-A -t 10.83.33.100:21 -s wrr",
    "-a -t 10.83.33.100:21 -r 10.83.33.76 -g -w 3",
    "-a -t 10.83.33.100:21 -r 10.83.33.2 -g -w 1",
];

/// What `ipvsadm` prints, the connections left out: the newest server stands first.
const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.83.33.100:ftp wrr
  -> 10.83.33.2:ftp               Route   1
  -> 10.83.33.76:ftp              Route   3
";

/// Without the two last columns of the servers' lines.
fn without_connections(table: &str) -> String {
    let line = |line: &str| match line.split_once("Route   ") {
        Some((server, counts)) => format!("{server}Route   {}\n", counts.split(' ').next().unwrap()),
        None => format!("{line}\n"),
    };
    table.lines().map(line).collect()
}

#[test]
fn banners_show_three_to_one() {
    let lab = Lab::plan(PLAN);
    lab.vip("add", lab.v4("vip"));
    let _ftp = Ftp::start(&lab, &["rs1", "rs2"], &(10_000..=12_000));
    let mut daemon = Daemon::launch(&lab, "director", &Config::empty());
    for line in SERVICE {
        let _ = daemon.ipvsadm(line).ok();
    }
    daemon.wait_ready(true);
    assert_eq!(without_connections(&daemon.ipvsadm("").ok().stdout), TABLE);
    assert_eq!(without_connections(&daemon.client(&["adm"]).ok().stdout), TABLE);

    let mut shares = BTreeMap::new();
    let mut order = Vec::new();
    for _ in 0..40 {
        let server = ftp::banner(&lab);
        *shares.entry(server.clone()).or_insert(0) += 1;
        order.push(server);
    }
    assert_eq!(shares, BTreeMap::from([("rs1".to_owned(), 30), ("rs2".to_owned(), 10)]), "{order:?}");
    // Not in heaps: of any four in a row, three and one.
    for four in order.windows(4) {
        assert_eq!(four.iter().filter(|server| *server == "rs1").count(), 3, "{order:?}");
    }
    // The figures of --stats are as fresh as the estimator, as they are in the kernel.
    within("the statistics show it too", Duration::from_secs(5), || {
        let stats = daemon.ipvsadm("-ln --stats").ok().stdout;
        let connections = |server: &str| {
            let line = stats.lines().find(|line| line.contains(server)).unwrap_or_default();
            line.split_whitespace().nth(2).unwrap_or_default().to_owned()
        };
        let counted = [connections("10.83.33.76:21"), connections("10.83.33.2:21")];
        if counted == ["30", "10"] { Ok(()) } else { Err(stats) }
    });
}

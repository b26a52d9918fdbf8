//! Set-up 4 with the director as one of the two FTP servers: .83 in the place of .2. It answers what falls to it by a vsftpd of
//! its own, next to the remote server.
//!
//! ```text
//!   10.83.33.0/24
//!   client .7 ── bridge ── director .83   VIP .100   weight 1   vsftpd
//!                    └──── rs1 .76                   weight 3   vsftpd
//! ```

use std::collections::BTreeMap;

use xlvs_tests::ftp::{self, Client, Ftp};
use xlvs_tests::{Config, Daemon, Lab};

const PLAN: &str = "
    client   eth0 lan 10.83.33.7/24
    director eth0 lan 10.83.33.83/24
    rs1      eth0 lan 10.83.33.76/24
    vip 10.83.33.100
";

const SERVICE: [&str; 3] = [
    "-A -t 10.83.33.100:21 -s wrr",
    "-a -t 10.83.33.100:21 -r 10.83.33.76 -g -w 3",
    "-a -t 10.83.33.100:21 -r 10.83.33.83 -g -w 1",
];

#[test]
fn banners_show_three_to_one_and_a_client_that_is_kept_gets_its_files() {
    let lab = Lab::plan(PLAN);
    lab.vip("add", lab.v4("vip"));
    let _ftp = Ftp::start(&lab, &["rs1", "director"], &(10_000..=12_000));
    let mut daemon = Daemon::launch(&lab, "director", &Config::empty());
    for line in SERVICE {
        let _ = daemon.ipvsadm(line).ok();
    }
    daemon.wait_ready(true);
    let table = daemon.ipvsadm("-ln").ok().stdout;
    assert!(
        table.contains("  -> 10.83.33.83:21               Route   1 "),
        "as the kernel lists it: {table}"
    );

    let mut shares = BTreeMap::new();
    for _ in 0..40 {
        *shares.entry(ftp::banner(&lab)).or_insert(0) += 1;
    }
    assert_eq!(shares, BTreeMap::from([("rs1".to_owned(), 30), ("director".to_owned(), 10)]));

    // Persistent, and kept to the director: control and data, passive and active, are both its own.
    for line in ["-E -t 10.83.33.100:21 -s wrr -p 540", "-e -t 10.83.33.100:21 -r 10.83.33.76 -g -w 0"] {
        let _ = daemon.ipvsadm(line).ok();
    }
    for client in Client::ALL {
        let met = client.fetch(&lab, "10.83.33.7", "10.83.33.100");
        let own = Ok(("director".to_owned(), "director".to_owned()));
        assert_eq!(met, own, "{client:?}: {:?}", daemon.drops());
    }
    assert_eq!(daemon.drops(), BTreeMap::new());
}

//! What the director answers itself, as a client's own kernel understands it.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1   (quiesced)
//! ```

use std::net::TcpStream;
use std::time::Duration;
use xlvs_tests::{Config, Daemon, Lab};

/// Port unreachable (ICMP 3.3, ICMPv6 1.4) in answer to a SYN: the client gives up at once instead of trying for minutes.
#[test]
fn a_client_is_refused_at_once_when_no_server_is_usable() {
    let lab = Lab::up(&["--servers", "1"]);
    let mut config = Config::web(&lab, &["rs1"]);
    for server in [lab.v4("rs1"), lab.v6("rs1")] {
        config.weigh(server, 0);
    }
    let daemon = Daemon::start(&lab, &config);
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let limit = Duration::from_secs(5);
        let tried = lab.inside("client", || TcpStream::connect_timeout(&(vip, 80).into(), limit));
        assert_eq!(tried.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
    }
    let status = daemon.status();
    assert_eq!(status["drops"]["no_destination"], 2, "{status:#}");
    assert_eq!(status["workers"][0]["answered"], 2, "{status:#}");
}

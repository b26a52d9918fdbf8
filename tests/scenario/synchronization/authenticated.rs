//! Directors that authenticate their messages (`sync.authenticate`): connections go over, and nobody without the key tells or learns anything.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use xlvs_control::synchronization::trailer::{LENGTH, MacKey, Sealer, Stream};
use xlvs_tests::named::Caller;
use xlvs_tests::{Daemon, Lab, Named, within};

use super::super::keepalived_pair::SERVERS;
use super::daemons::{made_up, tell};
use super::{DIRECTORS, PLAN, by, is_known_to, keyed, service, serving};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
const CALLERS: usize = 6;
const FORGED: usize = 100;
const LIMIT: Duration = Duration::from_secs(10);

/// Who listens to the group at the client's, and what came there.
struct Listener {
    socket: UdpSocket,
    heard: Vec<Vec<u8>>,
}

impl Listener {
    fn new(lab: &Lab) -> Self {
        let socket = lab.inside("client", || {
            let socket = UdpSocket::bind((GROUP, 8848)).unwrap();
            socket.join_multicast_v4(&GROUP, &Ipv4Addr::new(10, 0, 0, 5)).unwrap();
            socket
        });
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// The connections in all messages that came.
    fn entries(&mut self) -> u64 {
        let mut datagram = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            self.heard.push(datagram[..length].to_vec());
        }
        self.heard.iter().map(|message| u64::from(message[4])).sum()
    }
}

fn count(daemon: &Daemon<'_>, what: &str) -> u64 {
    daemon.status()["sync"][what].as_u64().unwrap()
}

fn dropped(daemon: &Daemon<'_>, reason: &str) -> u64 {
    daemon.status()["sync"]["dropped"][reason].as_u64().unwrap_or(0)
}

/// Waits until each of these directors has dropped so many for these reasons together.
#[track_caller]
fn drop_all(daemons: &[Daemon<'_>], reasons: &[&str], wanted: usize) {
    for daemon in daemons {
        within("each is counted", LIMIT, || {
            let found: u64 = reasons.iter().map(|reason| dropped(daemon, reason)).sum();
            if found == wanted as u64 {
                Ok(())
            } else {
                Err(format!("{reasons:?} {wanted}: {}", daemon.status()["sync"]))
            }
        });
    }
}

/// What a director knows by others.
fn known(daemon: &Daemon<'_>) -> [u64; 4] {
    let [learned, refreshed, kept] = ["learned", "refreshed", "kept"].map(|what| count(daemon, what));
    [daemon.active(), learned, refreshed, kept]
}

fn milliseconds(ago: Duration) -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - ago;
    since.as_millis() as u64
}

/// The key in the directors' file.
fn shared_key(lab: &Lab) -> [u8; 32] {
    let digits = std::fs::read_to_string(lab.dir().join("sync.key")).unwrap();
    std::array::from_fn(|index| u8::from_str_radix(&digits[2 * index..][..2], 16).unwrap())
}

#[test]
fn who_has_no_key_tells_authenticated_directors_nothing_and_learns_nothing_of_them() {
    let lab = Lab::plan(PLAN);
    let vip = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::tcp(&lab, &SERVERS, vip);
    // The worst that there can be: who has no key sends from a peer's address.
    let table = "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 9\n";
    let sync = format!("{table}authenticate = true\n{}", keyed(&lab, &["10.0.0.2", "10.0.0.3", "10.0.0.5"]));
    let config = serving(vec![service(&lab, 7000)], &sync);
    let mut pair: [_; 2] = super::start(&lab, &config);
    let mut outsider = Daemon::launch(&lab, DIRECTORS[2], &serving(vec![service(&lab, 7000)], table));
    outsider.wait_ready(true);
    assert_eq!(pair[0].status()["sync"]["daemons"][0]["authenticated"], true);
    assert_eq!(outsider.status()["sync"]["daemons"][0]["authenticated"], false);
    // What they know from then on, messages have told.
    for daemon in &pair {
        within("it has asked the others", LIMIT, || match &daemon.status()["sync"]["catch_up"] {
            done if done["ready"] == true => Ok(()),
            other => Err(other.to_string()),
        });
    }
    let mut listener = Listener::new(&lab);

    // Connections go over.
    by(&lab, DIRECTORS[0], vip.ip());
    let connect = || {
        let mut caller = Caller::connect(&lab, None, vip).unwrap();
        (0..5).for_each(|_| caller.echo(b"hello").unwrap());
        caller
    };
    let mut callers: Vec<Caller> = (0..CALLERS).map(|_| connect()).collect();
    is_known_to(&pair[1], CALLERS);
    by(&lab, DIRECTORS[1], vip.ip());
    for caller in &mut callers {
        (0..60).for_each(|_| caller.echo(b"still there").unwrap());
    }
    within("all was said, by both, and heard", LIMIT, || {
        let said = pair.each_ref().map(|daemon| count(daemon, "sent_entries"));
        let known = pair.each_ref().map(|daemon| known(daemon)[1..].iter().sum::<u64>());
        let (all, is_heard) = (listener.entries(), [known[1], known[0]] == said);
        if is_heard && said[1] > 0 && all == said[0] + said[1] {
            Ok(())
        } else {
            Err(format!("{said:?} {known:?} {all}"))
        }
    });
    assert!(listener.heard.iter().all(|message| message[message.len() - LENGTH..].starts_with(b"xls1")));
    let repeated = listener.heard.clone();

    // Who has no key learns nothing.
    within("it is counted", LIMIT, || match dropped(&outsider, "wrong_size") {
        found if found == repeated.len() as u64 => Ok(()),
        other => Err(format!("{other} of {}", repeated.len())),
    });
    assert_eq!(known(&outsider), [0; 4]);

    // Nor does who has none tell anything: neither in the kernel's format, nor by another key, nor by what the directors have said.
    let before = pair.each_ref().map(known);
    let forged = made_up(FORGED as u32);
    tell(&lab, [10, 0, 0, 5], &forged);
    drop_all(&pair, &["not_authenticated"], FORGED);
    let sealer = |key: &[u8; 32], socket| Sealer::new(MacKey::of(key), Stream { sender: 66, socket }, 1400);
    let other = sealer(&[66; 32], 1).seal(&forged[0], milliseconds(Duration::ZERO)).to_vec();
    let mut changed = repeated[0].clone();
    changed[8 + 24] ^= 1;
    tell(&lab, [10, 0, 0, 5], &[other, changed]);
    drop_all(&pair, &["wrong_mac"], 2);
    tell(&lab, [10, 0, 0, 5], &repeated);
    drop_all(&pair, &["replayed", "reflected"], repeated.len());
    for (director, other) in pair.iter().zip([&pair[1], &pair[0]]) {
        assert_eq!(
            dropped(director, "replayed"),
            count(other, "sent_messages"),
            "{}",
            director.status()["sync"]
        );
    }
    let key = shared_key(&lab);
    let late = sealer(&key, 2).seal(&forged[0], milliseconds(Duration::from_secs(60))).to_vec();
    tell(&lab, [10, 0, 0, 5], &[late]);
    drop_all(&pair, &["out_of_time"], 1);
    assert_eq!(pair.each_ref().map(known), before, "none of it has changed anything");
    // With the key, the same message is learned.
    let right = sealer(&key, 3).seal(&forged[0], milliseconds(Duration::ZERO)).to_vec();
    tell(&lab, [10, 0, 0, 5], &[right]);
    within("it is learned", LIMIT, || match known(&pair[1])[1] {
        learned if learned == before[1][1] + 1 => Ok(()),
        other => Err(other),
    });

    // A director that starts again is believed.
    let replayed = dropped(&pair[1], "replayed");
    pair[0].kill();
    pair[0].respawn();
    pair[0].wait_ready(true);
    by(&lab, DIRECTORS[0], vip.ip());
    callers.push(connect());
    is_known_to(&pair[1], CALLERS + 1);
    assert_eq!(dropped(&pair[1], "replayed"), replayed);

    // Without its key, a director says nothing, rather than what anybody could have said.
    let file = lab.dir().join("sync.key");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    pair[1].hang_up();
    within("its daemons end", LIMIT, || {
        let log = pair[1].log();
        let is_told =
            ["master", "backup"].iter().all(|role| log.contains(&format!("can't be {role} on eth0: ")));
        let running = pair[1].status()["sync"]["daemons"].to_string();
        if is_told && log.contains("mode is 0644") && running == "[]" { Ok(()) } else { Err(log) }
    });
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    pair[1].hang_up();
    within("they run again", LIMIT, || match pair[1].status()["sync"]["daemons"].as_array() {
        Some(daemons) if daemons.len() == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

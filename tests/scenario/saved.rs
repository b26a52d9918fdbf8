//! Tables that are saved and restored: the director's is the same again. By the programs that an operator has, over the real socket.
//!
//! ```text
//!   director (nobody sends anything)
//! ```

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xlvs_tests::lab::xlvs;
use xlvs_tests::{Config, Daemon, Lab, within};

const TABLES: usize = 25;

/// A program of ipvsadm's, which is a link to xlvs.
fn program(lab: &Lab, name: &str) -> PathBuf {
    let link = lab.dir().join(name);
    let _ = symlink(xlvs(), &link);
    link
}

/// Runs a program with words and an input; its output, if it has no other complaint.
#[track_caller]
fn run(lab: &Lab, daemon: &Daemon<'_>, name: &str, words: &str, input: &str) -> String {
    let mut command = Command::new(program(lab, name));
    command.env("XLVS_SOCKET", daemon.socket()).args(words.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(done.stdout), text(done.stderr));
    assert_eq!((done.status.code(), err.as_str()), (Some(0), ""), "{name} {words} < {input}");
    out
}

/// What tables are made of.
struct Drawer {
    random: ChaCha8Rng,
    /// Also what ipvsadm has no words for.
    all: bool,
}

impl Drawer {
    fn one_in(&mut self, odds: u32) -> bool {
        self.random.random_ratio(1, odds)
    }

    fn among<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.choose(&mut self.random).unwrap()
    }

    fn port(&mut self) -> u16 {
        if self.one_in(4) { 0 } else { self.random.random() }
    }

    fn address(&mut self, v6: bool, port: u16) -> String {
        if v6 {
            format!("[fd00::{:x}:{:x}]:{port}", self.random.random::<u16>(), self.random.random::<u16>())
        } else {
            format!(
                "10.{}.{}.{}:{port}",
                self.random.random::<u8>(),
                self.random.random::<u8>(),
                self.random.random::<u8>()
            )
        }
    }

    /// The commands that make a table.
    fn table(&mut self) -> String {
        let count = self.random.random_range(0..12);
        (0..count).map(|_| self.service()).collect()
    }

    fn service(&mut self) -> String {
        let v6 = self.one_in(2);
        let kind = self.among(&["-t", "-u", "--sctp-service", "-f"]);
        let port = self.port();
        let name = match kind {
            "-f" => {
                let most = if self.all { u32::MAX } else { i32::MAX.unsigned_abs() };
                // Seldom twice the same, which would be refused.
                let least = if self.one_in(3) { most - 100_000 } else { 1 };
                let mark = self.random.random_range(least..=most);
                format!("-f {mark}{}", if v6 { " -6" } else { "" })
            }
            _ => format!("{kind} {}", self.address(v6, port)),
        };
        let scheduler =
            self.among(&["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "dh", "sh", "mh", "twos"]);
        let mut text = format!("-A {name} -s {scheduler}");
        let is_persistent = self.one_in(2) || kind != "-f" && port == 0 && !self.all;
        if is_persistent {
            text += &format!(" -p {}", [1, 360, 2_678_400].choose(&mut self.random).unwrap());
            if self.one_in(2) {
                text += if v6 { " -M 64" } else { " -M 255.255.240.0" };
            }
        }
        if self.one_in(5) {
            text += " --pe sip";
        }
        let one_packet = self.one_in(4) && (self.all || ["-u", "-f"].contains(&kind));
        if one_packet {
            text += " -o";
        }
        let flags: &[&str] = if self.all || !["sh", "mh"].contains(&scheduler) {
            &["flag-1", "flag-2", "flag-3"]
        } else {
            &["flag-1", "flag-2"]
        };
        let amount = self.random.random_range(0..=flags.len());
        let flags = flags.iter().copied().choose_multiple(&mut self.random, amount).join(",");
        if !flags.is_empty() {
            text += &format!(" -b {flags}");
        }
        if self.all {
            text += " --full";
        }
        text.push('\n');
        for _ in 0..self.random.random_range(0..6) {
            text += &self.destination(&name, v6);
        }
        text
    }

    fn destination(&mut self, service: &str, v6: bool) -> String {
        let methods = ["-g", "-m", "-i", "--local", "--bypass"];
        let method = self.among(if self.all { &methods } else { &methods[..3] });
        // Another family is only for tunnels.
        let mixes = method == "-i" && self.one_in(2);
        let port = self.port();
        let address = self.address(v6 != mixes, port);
        let weight = [0, 1, 100, 2_147_483_647].choose(&mut self.random).unwrap();
        let mut text = format!("-a {service} -r {address} {method} -w {weight}");
        if method == "-i" {
            text += self.among(&[
                "",
                " --tun-type gue --tun-port 6080 --tun-remcsum",
                " --tun-type gue --tun-port 65535 --tun-csum",
                " --tun-type gre",
                " --tun-type gre --tun-csum",
            ]);
        }
        if self.all && self.one_in(2) {
            text += self.among(&[" -x 100", " -x 100 -y 50", " -x 2147483647 -y 2147483647"]);
        }
        if self.all {
            text += " --full";
        }
        text.push('\n');
        text
    }
}

fn tableless(lab: &Lab) -> Config {
    let mut config = Config::web(lab, &[]).with("vip = \"always\"");
    config.services.clear();
    config
}

/// The parts of a text, in whatever order they stood: ipvsadm's save sorts destinations, and that by no order that would hold
/// for addresses far apart.
fn in_no_order(text: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        text.split(['\n', '{']).map(|part| part.trim_end_matches([',', ']', '}']).to_owned()).collect();
    parts.sort();
    parts
}

#[test]
fn what_is_saved_is_restored_as_it_was() {
    let lab = Lab::up(&["--servers", "1"]);
    let daemon = Daemon::start(&lab, &tableless(&lab));
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for number in 0..TABLES {
        let all = number % 2 == 0;
        let lines = Drawer { random: ChaCha8Rng::seed_from_u64(random.random()), all }.table();
        let call = |name: &str, words: &str, input: &str| run(&lab, &daemon, name, words, input);
        let _ = call("ipvsadm-restore", "", &lines);
        let options = if all { "--full" } else { "-n" };
        let saved = call("ipvsadm-save", options, "");
        let seen = || {
            let texts = [call("ipvsadm-save", options, ""), call("ipvsadm", "-L --json --nosort", "")];
            if all { texts.map(|text| vec![text]) } else { [in_no_order(&texts[0]), in_no_order(&texts[1])] }
        };
        let table = seen();
        let _ = call("ipvsadm-restore", "", &saved);
        assert_eq!(seen(), table, "seed {seed}, table {number}:\n{lines}\nsaved as\n{saved}");
        let services = lines.lines().filter(|line| line.starts_with("-A")).count();
        assert_eq!(saved.lines().filter(|line| line.starts_with("-A")).count(), services, "{lines}");
    }
}

#[test]
fn a_line_of_restore_is_done_when_it_comes() {
    let lab = Lab::up(&["--servers", "1"]);
    let daemon = Daemon::start(&lab, &tableless(&lab));
    let mut command = Command::new(program(&lab, "ipvsadm"));
    command.env("XLVS_SOCKET", daemon.socket()).arg("-R").stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for (line, services) in [("-A -f 1\n-A -f", 1), (" 2\n", 2), ("-A -f 3", 2)] {
        input.write_all(line.as_bytes()).unwrap();
        within("the whole lines are done", Duration::from_secs(10), || {
            let saved = run(&lab, &daemon, "ipvsadm", "-S", "");
            if saved.lines().count() == services { Ok(()) } else { Err(saved) }
        });
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(run(&lab, &daemon, "ipvsadm", "-S", "").lines().count(), 3, "the last line needs no end");
}

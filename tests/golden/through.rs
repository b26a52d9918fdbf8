//! Replays a file of commands through a running daemon, in the network that the captures were made in: the shell runs each line
//! as an operator would, where `ipvsadm` is `xlvs adm`, or the machine's own under `xlvs wrap`.
//!
//! ```text
//!   client .5 (sends the frames of all clients) ──┐
//!   director .2, VIPs .100, .101, fd00::100 ──────┴── switch          servers .11 to .18, fd00::b: neighbour entries only
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xlvs_control::registry;
use xlvs_tests::command::run;
use xlvs_tests::lab::xlvs;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Config, Daemon, Lab};

use crate::formats::{self, Stage};
use crate::machine::Done;
use crate::network;
use crate::waivers::Waivers;
use crate::{Case, Way};

/// What the ipvsadm package installs.
const DEBIAN: &str = "/usr/sbin";
/// How long a line of the shell may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Replays the commands in their order; a case each.
pub fn replay(way: Way, file: &str, lines: &[serde_json::Value], waivers: &Waivers) -> Vec<Case> {
    let lab = Lab::up(&["--servers", "1"]);
    lab.vip("add", "10.0.0.101".parse().unwrap());
    for address in (11..=18).map(|last| format!("10.0.0.{last}")).chain(["fd00::b".to_owned()]) {
        let way = network::way(address.parse().unwrap(), network::MTU);
        let registry::Way::To(path) = way else { panic!("{address} is no real server's") };
        let mac = path.destination_mac.map(|octet| format!("{octet:02x}")).join(":");
        let line = ["ip", "neighbor", "replace", &address, "lladdr", &mac, "dev", "eth0", "nud", "permanent"];
        let _ = lab.exec("director", &line).ok();
    }
    let config = Config {
        director: vec!["interface = \"eth0\"".to_owned()],
        services: Vec::new(),
        tables: Vec::new(),
    };
    let daemon = Daemon::start(&lab, &config);
    let programs = lab.dir().join("bin");
    install(way, &programs);
    fs::create_dir(lab.dir().join("tmp")).unwrap();
    let sender = RawSender::on(&lab, "client", "eth0");
    formats::replay(&mut Through { lab: &lab, daemon: &daemon, programs, sender }, file, lines, waivers)
}

struct Through<'l> {
    lab: &'l Lab,
    daemon: &'l Daemon<'l>,
    programs: PathBuf,
    sender: RawSender,
}

impl Stage for Through<'_> {
    fn run(&mut self, line: &str, input: &str) -> Done {
        let folder = self.lab.dir();
        let stdin = folder.join("stdin");
        fs::write(&stdin, input).unwrap();
        // What lines leave in /tmp is this replay's own.
        let line = line.replace("/tmp/", &format!("{}/tmp/", folder.display()));
        let mut command = self.lab.command("director", "/bin/sh");
        command.args(["-c", "exec /bin/sh -c \"$0\" <\"$1\"", &line]).arg(stdin);
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.programs.display()));
        command.env("XLVS_SOCKET", self.daemon.socket()).env("LC_ALL", "C");
        let done = run(command, LIMIT);
        Done { code: done.code.unwrap_or(-1), out: done.stdout, err: done.stderr }
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.sender.send(&frame);
    }

    fn settle(&mut self) {
        // A setting's change is answered when all workers have it, and with it what was changed before.
        let _ = self.daemon.client(&["settings", "am_droprate=10"]).ok();
    }

    fn pass(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Puts the programs that the lines name into a folder.
fn install(way: Way, folder: &Path) {
    fs::create_dir(folder).unwrap();
    let xlvs = xlvs();
    let xlvs = xlvs.display();
    let script = |name: &str, body: &str| {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    match way {
        Way::Ipvsadm => {
            for name in ["ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
                // By its name, which is in what it says.
                script(name, &format!("PATH={DEBIAN}:$PATH exec {xlvs} wrap -- {name} \"$@\""));
            }
        }
        Way::Adm | Way::Memory => {
            script("ipvsadm", &format!("exec {xlvs} adm \"$@\""));
            for name in ["ipvsadm-save", "ipvsadm-restore"] {
                symlink(xlvs.to_string(), folder.join(name)).unwrap();
            }
        }
    }
    // The kernel's files and settings, in the words of their counterparts.
    script(
        "cat",
        &format!(
            "case $1 in /proc/net/ip_vs*) exec {xlvs} wrap -- /bin/cat \"$@\" ;; esac\nexec /bin/cat \"$@\""
        ),
    );
    let settings = format!("{xlvs} settings | sed 's/ (default.*//'");
    script(
        "sysctl",
        &format!(
            "[ \"$*\" = net.ipv4.vs ] || exec {xlvs} settings \"$@\"\n{settings} | sed 's/^/net.ipv4.vs./' | sort"
        ),
    );
    script(
        "ls",
        &format!(
            "[ \"$*\" = /proc/sys/net/ipv4/vs ] || exec /bin/ls \"$@\"\n{settings} | cut -d ' ' -f 1 | sort"
        ),
    );
}

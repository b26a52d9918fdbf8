//! Who may use the control socket: root, the users of one group as root does, those of another only to ask, and nobody else, who can't
//! keep root from its tools either.
//!
//! ```text
//!   director (xlvs run; the tools of several users) ── bridge ── rs1
//! ```

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use xlvs_tests::command::{Finished, run};
use xlvs_tests::lab::xlvs;
use xlvs_tests::{Config, Daemon, Lab};

/// A user and groups that no database has.
const STRANGER: u32 = 3_999_000_001;
const OPERATORS: u32 = 3_999_000_002;
const WATCHERS: u32 = 3_999_000_003;
const OTHERS: u32 = 3_999_000_004;
/// The user `daemon`, who in the database is of the group `daemon`; both are 1 on every Debian.
const DAEMON: u32 = 1;

struct Site<'lab> {
    daemon: Daemon<'lab>,
    /// A copy of xlvs where every user can run it.
    program: PathBuf,
}

impl<'lab> Site<'lab> {
    fn start(lab: &'lab Lab, groups: &[&str]) -> Self {
        let program = lab.dir().join("xlvs");
        std::fs::copy(xlvs(), &program).unwrap();
        let config = groups.iter().fold(Config::web(lab, &["rs1"]), |config, line| config.with(line));
        Self { daemon: Daemon::start(lab, &config), program }
    }

    /// Runs xlvs as this user with this group alone.
    fn xlvs(&self, (user, group): (u32, u32), line: &str) -> Finished {
        let mut command = Command::new(&self.program);
        command.env("XLVS_SOCKET", self.daemon.socket()).args(line.split(' ')).current_dir("/");
        command.uid(user).gid(group);
        run(command, Duration::from_secs(10))
    }
}

#[test]
fn one_group_may_do_all_another_may_ask_and_nobody_else_is_served() {
    let lab = Lab::up(&["--servers", "1"]);
    let (all, ask) =
        (format!("socket_group = \"{OPERATORS}\""), format!("socket_read_group = \"{WATCHERS}\""));
    let site = Site::start(&lab, &[&all, &ask]);
    let operator = |line: &str| site.xlvs((STRANGER, OPERATORS), line);
    let watcher = |line: &str| site.xlvs((STRANGER, WATCHERS), line);
    let other = |line: &str| site.xlvs((STRANGER, OTHERS), line);

    let _ = operator("adm -A -u 192.0.2.1:53 -s rr").ok();
    let _ = operator("settings sloppy_tcp=1").ok();
    let _ = operator("mark add 7 --destination 192.0.2.1").ok();

    let table = watcher("adm -Ln").ok().stdout;
    assert!(table.contains("UDP  192.0.2.1:53 rr"), "{table}");
    let _ = watcher("adm -Lcn").ok();
    let _ = watcher("adm --list --daemon").ok();
    let _ = watcher("status --json").ok();
    assert!(watcher("settings sloppy_tcp").ok().stdout.contains('1'));
    let marks = watcher("mark list").ok().stdout;
    assert!(marks.contains("192.0.2.1"), "{marks}");
    for change in
        ["-D -u 192.0.2.1:53", "-C", "-Z", "--set 1 2 3", "-A -t 192.0.2.1:80", "--start-daemon master"]
    {
        let done = watcher(&format!("adm {change}"));
        assert_eq!(
            (done.code, done.stderr.as_str()),
            (Some(255), "Permission denied (you must be root)\n"),
            "{change}"
        );
    }
    for change in ["settings sloppy_tcp=0", "mark del 7 --destination 192.0.2.1"] {
        let done = watcher(change);
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(done.stderr.contains("may only ask (director.socket_read_group)"), "{}", done.stderr);
    }
    assert_eq!(watcher("adm -Ln").ok().stdout, table, "nothing was changed");
    assert_eq!(watcher("mark list").ok().stdout, marks);

    let done = other("status");
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("in none of the groups"), "{}", done.stderr);
    let done = other("adm -Ln");
    assert!(done.code != Some(0) && done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.contains("ermission denied"), "{}", done.stderr);

    // Strangers who hold on to the socket take no place of root's, nor of the daemon's time.
    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let (user, group) = (Uid::from_raw(STRANGER), Gid::from_raw(WATCHERS));
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            let address = SocketAddrUnix::new(site.daemon.socket()).unwrap();
            let call = || {
                let caller = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
                connect(&caller, &address).map(|()| caller)
            };
            (0..200).map(|_| call().unwrap()).collect::<Vec<_>>()
        });
        let crowd = crowd.join().unwrap();
        for _ in 0..20 {
            let _ = site.xlvs((0, 0), "adm -Ln").ok();
        }
        drop(crowd);
    });
}

#[test]
fn the_file_itself_keeps_out_whom_no_group_lets_in() {
    let lab = Lab::up(&["--servers", "1"]);
    let mut site = Site::start(&lab, &[]);
    let done = site.xlvs((STRANGER, OPERATORS), "status");
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("run the command as root"), "{}", done.stderr);

    // The group that the database gives to a user counts too, not only the one that its process runs with.
    let config = Config::web(&lab, &["rs1"]).with("socket_read_group = \"daemon\"");
    let _ = site.daemon.stop();
    site.daemon = Daemon::start(&lab, &config);
    let _ = site.xlvs((DAEMON, OTHERS), "adm -Ln").ok();
    let _ = site.xlvs((DAEMON, OTHERS), "status").ok();
    assert_ne!(site.xlvs((STRANGER, OTHERS), "status").code, Some(0));

    let done = Daemon::fails(&lab, &config.with("socket_group = \"no-such-group\"").text(), &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("socket_group: found \"no-such-group\""), "{}", done.stderr);
}

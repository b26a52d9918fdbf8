//! A laboratory: `scripts/lab.sh up` made it, dropping it takes it down. Its names come from the script, so that demo and
//! tests run on the same hosts.

use crate::command::{Finished, Running, run};
use crate::until;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a short program in a laboratory may take.
pub const SOON: Duration = Duration::from_secs(20);

/// Client, director and real servers in namespaces; see `scripts/lab.sh` for the drawing.
#[derive(Debug)]
pub struct Lab {
    facts: HashMap<String, String>,
}

impl Lab {
    /// Builds a laboratory with the options of `lab.sh up`.
    #[track_caller]
    #[must_use]
    pub fn up(options: &[&str]) -> Self {
        Self::build(options)
    }

    /// Builds the laboratory that a plan describes: `scripts/lib/plan.sh` says how.
    #[track_caller]
    #[must_use]
    pub fn plan(plan: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), plan).unwrap();
        Self::build(&["--plan", file.path().to_str().unwrap()])
    }

    #[track_caller]
    fn build(options: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests build network namespaces: run them as root"
        );
        let pid = std::process::id();
        let name = format!("xlvs-{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = script("lab.sh");
        command.args(["up", "--name", &name, "--owner", &pid.to_string()]).args(options);
        let up = run(command, SOON).ok();
        let facts = up.stdout.lines().filter_map(|line| line.split_once('='));
        Self { facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    /// Builds a laboratory and starts a web server on each real server.
    #[track_caller]
    #[must_use]
    pub fn with_web(options: &[&str]) -> Self {
        let lab = Self::up(options);
        lab.web(&[]);
        lab
    }

    /// Starts nginx on the named real servers (on all, if none is named): `/` and the header X-Server give the server's
    /// name, `/page` is 64 KiB, `/download` 20 MiB.
    #[track_caller]
    pub fn web(&self, roles: &[&str]) {
        let mut command = script("lab.sh");
        command.args(["web", "--name", self.fact("name")]).args(roles);
        let _ = run(command, SOON).ok();
    }

    /// Ends a real server's nginx at once.
    #[track_caller]
    pub fn stop_web(&self, role: &str) {
        let pid_file = self.dir().join(format!("web-{role}/nginx.pid"));
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        // TERM is nginx's fast end: connections are closed with the process.
        let _ = self.exec(role, &["kill", "-TERM", pid.trim()]).ok();
        until("nginx has ended", Duration::from_secs(5), || !pid_file.exists());
    }

    /// A fact that `lab.sh up` printed, such as `mac_rs1_eth0`.
    #[track_caller]
    #[must_use]
    pub fn fact(&self, key: &str) -> &str {
        self.facts.get(key).unwrap_or_else(|| panic!("the lab has no {key}: {:?}", self.facts))
    }

    /// The laboratory's own directory, gone with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        Path::new(self.fact("dir"))
    }

    /// The namespace's file of a role.
    #[track_caller]
    #[must_use]
    pub fn namespace(&self, role: &str) -> PathBuf {
        Path::new("/run/netns").join(self.fact(&format!("ns_{role}")))
    }

    /// The IPv4 address of a role, `vip` included.
    #[track_caller]
    #[must_use]
    pub fn v4(&self, role: &str) -> IpAddr {
        self.fact(&format!("{role}_v4")).parse().unwrap()
    }

    /// The IPv6 address of a role, `vip` included.
    #[track_caller]
    #[must_use]
    pub fn v6(&self, role: &str) -> IpAddr {
        self.fact(&format!("{role}_v6")).parse().unwrap()
    }

    /// The VIPs that there are: the IPv4 one, and the IPv6 one if the lab has it.
    #[must_use]
    pub fn vips(&self) -> Vec<IpAddr> {
        let facts = ["vip_v4", "vip_v6"].into_iter().filter_map(|key| self.facts.get(key));
        facts.map(|vip| vip.parse().unwrap()).collect()
    }

    /// The MAC address of a role's interface.
    #[track_caller]
    #[must_use]
    pub fn mac(&self, role: &str, interface: &str) -> [u8; 6] {
        parse_mac(self.fact(&format!("mac_{role}_{interface}")))
    }

    /// What the kernel has counted on a role's interface: of a direction, "rx" or "tx", for example its "packets".
    #[track_caller]
    #[must_use]
    pub fn counted(&self, role: &str, interface: &str, direction: &str, what: &str) -> u64 {
        let shown = self.exec(role, &["ip", "-s", "-j", "link", "show", "dev", interface]).ok().stdout;
        let links: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let count = links[0]["stats64"][direction][what].as_u64();
        count.unwrap_or_else(|| panic!("no {direction} {what} in {links:#}"))
    }

    /// A program to run in a role's network namespace. nsenter executes it in its place: the pid is the program's own.
    #[track_caller]
    #[must_use]
    pub fn command(&self, role: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(role).display())).arg(program);
        command
    }

    /// Runs a program to its end in a role's namespace.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, role: &str, line: &[&str]) -> Finished {
        self.exec_within(role, SOON, line)
    }

    /// The same with a time limit of its own.
    #[track_caller]
    #[must_use]
    pub fn exec_within(&self, role: &str, limit: Duration, line: &[&str]) -> Finished {
        run(self.program(role, line), limit)
    }

    /// Starts a program beside the test in a role's namespace.
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, role: &str, line: &[&str]) -> Running {
        Running::start(self.program(role, line))
    }

    fn program(&self, role: &str, line: &[&str]) -> Command {
        let mut command = self.command(role, line[0]);
        command.args(&line[1..]);
        command
    }

    /// Runs `action` on a thread inside a role's network namespace; sockets it returns stay there.
    #[track_caller]
    pub fn inside<T: Send>(&self, role: &str, action: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.namespace(role)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&file);
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// One request by curl from the client, on a connection of its own: the server that answered with status 200, or
    /// what curl said.
    pub fn get(&self, address: IpAddr, path: &str, limit_s: u32) -> Result<String, String> {
        let limit = limit_s.to_string();
        let url = url(address, path);
        let format = "%{http_code} %header{x-server}";
        let line = ["curl", "-sS", "-m", &limit, "-o", "/dev/null", "-w", format, &url];
        let done = self.exec_within("client", Duration::from_secs(u64::from(limit_s) + 10), &line);
        match done.stdout.strip_prefix("200 ") {
            Some(server) if done.code == Some(0) => Ok(server.to_owned()),
            _ => Err(format!("curl {url}: exit {:?}, {} {}", done.code, done.stdout, done.stderr)),
        }
    }

    /// `count` requests by one curl, each on a connection of its own: how many each server answered. Requests that failed
    /// count under the name `failed`.
    #[track_caller]
    #[must_use]
    pub fn get_many(&self, address: IpAddr, count: usize) -> HashMap<String, usize> {
        let url = url(address, "/");
        let list = tempfile::NamedTempFile::new().unwrap();
        let entry = format!("url = \"{url}\"\noutput = /dev/null\n");
        std::fs::write(list.path(), entry.repeat(count)).unwrap();
        let path = list.path().to_str().unwrap();
        let format = "%{http_code} %header{x-server}\n";
        let done = self.exec_within(
            "client",
            Duration::from_secs(120),
            &[
                "curl",
                "-sS",
                "--connect-timeout",
                "5",
                "-m",
                "10",
                "-H",
                "Connection: close",
                "-w",
                format,
                "-K",
                path,
            ],
        );
        let mut answers = HashMap::new();
        for line in done.stdout.lines() {
            let server = line.strip_prefix("200 ").unwrap_or("failed");
            *answers.entry(server.to_owned()).or_default() += 1;
        }
        answers
    }

    /// Adds or takes a VIP on the director's eth0, as VRRP would.
    #[track_caller]
    pub fn vip(&self, action: &str, address: IpAddr) {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let address = format!("{address}/{prefix}");
        let mut line = vec!["ip", "address", action, &address, "dev", "eth0"];
        if action == "add" && prefix == 128 {
            line.extend(["nodad", "preferred_lft", "0"]);
        }
        let _ = self.exec("director", &line).ok();
    }

    /// Whether a role has this IPv4 address on eth0.
    #[track_caller]
    #[must_use]
    pub fn has_address(&self, role: &str, address: IpAddr) -> bool {
        let addresses = self.exec(role, &["ip", "-4", "-o", "address", "show", "dev", "eth0"]).ok().stdout;
        addresses.contains(&format!(" {address}/"))
    }

    /// What an XDP program leaves to see of itself on the director's interface: `ip -j link`'s "xdp" entry.
    #[track_caller]
    #[must_use]
    pub fn xdp_on(&self, interface: &str) -> Option<serde_json::Value> {
        let done = self.exec("director", &["ip", "-j", "link", "show", "dev", interface]).ok();
        let links: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        links[0].get("xdp").cloned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut command = script("lab.sh");
        command.args(["down", "--name", self.fact("name")]);
        let down = run(command, SOON);
        if !std::thread::panicking() {
            let _ = down.ok();
        }
    }
}

/// Takes the calling thread into this network namespace.
pub(crate) fn enter(namespace: &std::fs::File) {
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
}

/// The URL of a path at an address.
#[must_use]
pub fn url(address: IpAddr, path: &str) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}{path}"),
        IpAddr::V6(v6) => format!("http://[{v6}]{path}"),
    }
}

/// Six octets of "02:00:00:00:00:11".
#[track_caller]
#[must_use]
pub fn parse_mac(text: &str) -> [u8; 6] {
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap_or_else(|_| panic!("{text} is no MAC address"))
}

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A script of the repository, with `XLVS_BIN` set. It knows nothing of the package that the test is of, which cargo tells to its
/// tests: crates that look at it would be built anew.
#[must_use]
pub fn script(name: &str) -> Command {
    let mut command = Command::new(root().join("scripts").join(name));
    for (variable, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
        if variable.to_str().is_some_and(|name| of_package.iter().any(|its| name.starts_with(its))) {
            command.env_remove(variable);
        }
    }
    command.env("XLVS_BIN", xlvs()).env_remove("XLVS_LAB").env_remove("XLVS_SOCKET").current_dir(root());
    command
}

/// The daemon under test: `XLVS_BIN`, or the release build beside the profile that this program was built in.
#[track_caller]
#[must_use]
pub fn xlvs() -> PathBuf {
    let named = std::env::var_os("XLVS_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let program = std::env::current_exe().unwrap(); // target/<profile>/deps/<test> or target/<profile>/<program>
        let folder = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap();
        folder.with_file_name("release").join("xlvs")
    });
    assert!(path.is_file(), "no daemon at {}: cargo build --release --bin xlvs makes it", path.display());
    path
}

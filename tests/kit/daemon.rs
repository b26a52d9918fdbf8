//! The daemon in a director's namespace: started, waited for by its own status, told to reload, ended in every way.
//! A test that fails prints the daemon's log.

use crate::command::{Finished, Running, inherit_orphans, run};
use crate::lab::{SOON, xlvs};
use crate::{Config, Lab, within};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long the daemon may take to be ready.
const READY: Duration = Duration::from_secs(15);

/// A daemon that ended instead of serving.
pub type Failed = Finished;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon<'lab> {
    lab: &'lab Lab,
    role: &'static str,
    /// The name of its configuration file, and more of its command line.
    file: String,
    options: Vec<String>,
    /// What stands before it on its command line.
    wrapper: Vec<String>,
    running: Option<Running>,
}

impl<'lab> Daemon<'lab> {
    /// Starts the daemon in the director and waits until it serves every service over resolved neighbours.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &'lab Lab, config: &Config) -> Self {
        let mut daemon = Self::launch(lab, "director", config);
        daemon.wait_ready(true);
        daemon
    }

    /// Starts it without waiting for anything.
    #[track_caller]
    #[must_use]
    pub fn launch(lab: &'lab Lab, role: &'static str, config: &Config) -> Self {
        Self::launch_on(lab, role, &format!("{role}.toml"), &config.text(), &[])
    }

    /// Starts it in the director on a file of this name and text, with more options, and waits until it serves every service.
    #[track_caller]
    #[must_use]
    pub fn start_on(lab: &'lab Lab, file: &str, text: &str, options: &[&str]) -> Self {
        let mut daemon = Self::launch_on(lab, "director", file, text, options);
        daemon.wait_ready(true);
        daemon
    }

    /// Starts it on a file of this name and text, with more options, without waiting for anything.
    #[track_caller]
    #[must_use]
    pub fn launch_on(lab: &'lab Lab, role: &'static str, file: &str, text: &str, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let file = file.to_owned();
        let mut daemon = Self { lab, role, file, options, wrapper: Vec::new(), running: None };
        daemon.write(text);
        daemon.respawn();
        daemon
    }

    /// Runs a daemon that is expected to end by itself: `wrapper` is put before it (such as setpriv with its options).
    #[track_caller]
    #[must_use]
    pub fn fails(lab: &'lab Lab, config: &str, wrapper: &[&str]) -> Failed {
        let file = lab.dir().join("failing.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = wrapped(lab, "director", wrapper);
        command.args(["run", "--config"]).arg(file);
        command.arg("--socket").arg(lab.dir().join("failing.sock"));
        command.arg("--state-dir").arg(lab.dir().join("failing-state"));
        run(command, READY)
    }

    /// From the next start on, a program that executes it is put before it (such as `env` with its arguments).
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// Starts it (again) on the file as it is.
    #[track_caller]
    pub fn respawn(&mut self) {
        self.running = Some(Running::start(self.command(&self.wrapper)));
    }

    /// What starts it on the file as it is.
    fn command(&self, wrapper: &[impl AsRef<OsStr>]) -> Command {
        let mut command = wrapped(self.lab, self.role, wrapper);
        command.args(["run", "--config"]).arg(self.file()).args(&self.options);
        command.arg("--socket").arg(self.socket());
        command.arg("--state-dir").arg(self.lab.dir().join(format!("{}-state", self.role)));
        // Where the test's own file names none.
        if !std::fs::read_to_string(self.file()).unwrap().contains("connections_file") {
            command.arg("--connections-file").arg(self.connections_file());
        }
        command
    }

    /// Starts a process that takes over from it, on the file as it is; `wrapper` is put before it.
    #[track_caller]
    #[must_use]
    pub fn successor(&self, wrapper: &[&str]) -> Running {
        let mut command = self.command(wrapper);
        command.arg("--takeover");
        Running::start(command)
    }

    /// Goes on with a process that has taken over from it. Returns what the former one left, which has to end by itself, with exit
    /// code 0.
    #[track_caller]
    pub fn succeeded_by(&mut self, successor: Running) -> Finished {
        let former = self.running.replace(successor).unwrap();
        former.finish(Duration::from_secs(5)).ok()
    }

    /// Has it upgraded by SIGUSR2, and goes on with the process that it starts then.
    #[track_caller]
    pub fn upgrade(&mut self) {
        inherit_orphans();
        let former = self.pid();
        self.signal(Signal::SIGUSR2);
        let running = self.running.as_mut().unwrap();
        let ((), _) = within("it ends, as another one has taken over", READY, || {
            if running.has_ended() { Ok(()) } else { Err(running.stderr()) }
        });
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains(" serves")).unwrap_or_else(|| panic!("{log}"));
        let heir = line.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
        assert_ne!(heir, former);
        self.running.as_mut().unwrap().become_heir(heir);
    }

    /// Whether it has ended.
    #[track_caller]
    pub fn has_ended(&mut self) -> bool {
        self.running.as_mut().unwrap().has_ended()
    }

    /// Waits until its status says that it serves: every service, and if `resolved`, every neighbour known or this host.
    #[track_caller]
    pub fn wait_ready(&mut self, resolved: bool) {
        let ready = within("the daemon is ready", READY, || {
            if self.running.as_mut().is_none_or(Running::has_ended) {
                panic!("the daemon ended at its start: {}", self.log());
            }
            let status = self.try_status()?;
            let services = list(&status, "services");
            let serves = services.iter().all(|service| {
                let known = |destination: &Value| {
                    destination["neighbor"] == "resolved" || destination["neighbor"] == "local"
                };
                service["served"] == true && (!resolved || list(service, "destinations").iter().all(known))
            });
            if serves && list(&status, "interfaces").iter().all(|i| i["queues"].as_u64() > Some(0)) {
                Ok(())
            } else {
                Err(format!("{status:#}"))
            }
        });
        let ((), _) = ready;
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.lab.dir().join(format!("{}.sock", self.role))
    }

    /// The file that its connections outlive it in: in memory, as `/run` need not be. Gone with it.
    #[must_use]
    pub fn connections_file(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/{}-{}.connections", self.lab.fact("name"), self.role))
    }

    /// Its configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.lab.dir().join(&self.file)
    }

    /// Its process id.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().pid()
    }

    /// The memory that it has in use, in KiB.
    #[track_caller]
    #[must_use]
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.as_ref().map(|running| running.stderr() + &running.stdout()).unwrap_or_default()
    }

    /// Puts a text into its file, without telling it.
    #[track_caller]
    pub fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        self.running.as_mut().unwrap().signal(signal);
    }

    /// Tells it to read its file again.
    #[track_caller]
    pub fn hang_up(&mut self) {
        self.signal(Signal::SIGHUP);
    }

    /// Gives it another configuration and waits until its status shows exactly that one.
    #[track_caller]
    pub fn reload(&mut self, config: &Config) {
        self.write(&config.text());
        self.hang_up();
        let wanted = shape_of_config(config);
        let ((), _) = within("the new configuration is in force", Duration::from_secs(5), || {
            let status = self.try_status()?;
            let found = shape_of_status(&status);
            if found == wanted { Ok(()) } else { Err(format!("{found:?}, wanted {wanted:?}")) }
        });
    }

    /// A client command such as `status`, against this daemon.
    #[track_caller]
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(xlvs());
        command.env("XLVS_SOCKET", self.socket()).args(arguments);
        run(command, SOON)
    }

    /// Debian's ipvsadm, under `xlvs wrap`, in the director's namespace.
    #[track_caller]
    #[must_use]
    pub fn ipvsadm(&self, line: &str) -> Finished {
        let mut command = self.lab.command(self.role, xlvs());
        command.env("XLVS_SOCKET", self.socket()).args(["wrap", "--", "ipvsadm"]);
        command.args(line.split_whitespace());
        run(command, SOON)
    }

    /// Its status, or why there is none (yet).
    pub fn try_status(&self) -> Result<Value, String> {
        let done = self.client(&["status", "--json"]);
        match (done.code, serde_json::from_str(&done.stdout)) {
            (Some(0), Ok(status)) => Ok(status),
            (_, parsed) => Err(format!("{done:?} {parsed:?}")),
        }
    }

    /// Its status.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    /// One service of the status.
    #[track_caller]
    #[must_use]
    pub fn service(&self, address: IpAddr, port: u16) -> Value {
        let status = self.status();
        let is_it = |s: &&Value| s["address"] == address.to_string().as_str() && s["port"] == port;
        list(&status, "services").iter().find(is_it).cloned().unwrap_or_else(|| panic!("none in {status:#}"))
    }

    /// The service of a mark.
    #[track_caller]
    #[must_use]
    pub fn mark_service(&self, mark: u32, family: &str) -> Value {
        let status = self.status();
        let is_it = |s: &&Value| s["mark"] == mark && s["family"] == family;
        list(&status, "services").iter().find(is_it).cloned().unwrap_or_else(|| panic!("none in {status:#}"))
    }

    /// One destination of a service of the status.
    #[track_caller]
    #[must_use]
    pub fn destination(&self, service: (IpAddr, u16), address: IpAddr) -> Value {
        let service = self.service(service.0, service.1);
        let is_it = |d: &&Value| d["address"] == address.to_string().as_str();
        let found = list(&service, "destinations").iter().find(is_it).cloned();
        found.unwrap_or_else(|| panic!("no {address} in {service:#}"))
    }

    /// Connections that are established, of all services together.
    #[track_caller]
    #[must_use]
    pub fn active(&self) -> u64 {
        let status = self.status();
        let services = list(&status, "services").iter();
        let destinations = services.flat_map(|service| list(service, "destinations"));
        destinations.map(|destination| destination["active"].as_u64().unwrap()).sum()
    }

    /// Waits until two seconds of the daemon's time have passed: what it does each second is done.
    #[track_caller]
    pub fn two_seconds_pass(&self) {
        let uptime = || self.status()["uptime_s"].as_u64().unwrap();
        let before = uptime();
        within("two seconds of its time pass", Duration::from_secs(10), || {
            let now = uptime();
            if now >= before + 2 { Ok(()) } else { Err(now) }
        });
    }

    /// The drop counters by reason.
    #[track_caller]
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let drops = status["drops"].as_object().unwrap_or_else(|| panic!("no drops in {status:#}"));
        drops.iter().map(|(reason, count)| (reason.clone(), count.as_u64().unwrap())).collect()
    }

    /// Ends it at once, as the kernel's out-of-memory killer would.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        running.signal(Signal::SIGKILL);
        let _ = running.finish(Duration::from_secs(5));
    }

    /// Asks it to end; it must do so within five seconds, with exit code 0.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        let mut running = self.running.take().unwrap();
        running.signal(Signal::SIGTERM);
        running.finish(Duration::from_secs(5)).ok()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if let Some(running) = self.running.take() {
            end(running);
        }
        let _ = std::fs::remove_file(self.connections_file());
    }
}

/// The director's program in a role's namespace, with `wrapper` before it.
fn wrapped(lab: &Lab, role: &str, wrapper: &[impl AsRef<OsStr>]) -> Command {
    match wrapper {
        [] => lab.command(role, xlvs()),
        [program, arguments @ ..] => {
            let mut command = lab.command(role, program);
            command.args(arguments).arg(xlvs());
            command
        }
    }
}

/// A clean end takes its program off the interface; what hangs is killed by the drop of `running`.
fn end(mut running: Running) {
    running.signal(Signal::SIGTERM);
    let start = std::time::Instant::now();
    while !running.has_ended() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The array under a key; empty if there is none.
#[must_use]
pub fn list<'value>(value: &'value Value, key: &str) -> &'value [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

type Shape = Vec<(String, String, u64, String, Vec<(String, u64)>)>;

fn shape_of_config(config: &Config) -> Shape {
    let services = config.services.iter().map(|service| {
        let destinations = service.destinations.iter().map(|(a, weight)| (a.to_string(), u64::from(*weight)));
        let (protocol, address, number) = match service.mark {
            Some(mark) => (String::new(), String::new(), u64::from(mark)),
            None => (service.protocol.to_owned(), service.address.to_string(), u64::from(service.port)),
        };
        (protocol, address, number, service.scheduler.to_owned(), sorted(destinations))
    });
    sorted(services)
}

fn shape_of_status(status: &Value) -> Shape {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let services = list(status, "services").iter().map(|service| {
        let destinations =
            list(service, "destinations").iter().map(|d| (text(&d["address"]), number(&d["weight"])));
        (
            text(&service["protocol"]),
            text(&service["address"]),
            number(if service["mark"].is_null() { &service["port"] } else { &service["mark"] }),
            text(&service["scheduler"]),
            sorted(destinations),
        )
    });
    sorted(services)
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items
}

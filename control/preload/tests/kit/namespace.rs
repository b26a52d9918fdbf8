//! A network namespace for a test: taken down when dropped, with the programs in it ended by their pid before.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace with the ends `ka0` and `ka1` of a cable in it, both up.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self { name: format!("xlvs-preload-{}-{count}", std::process::id()) };
        ip(&format!("netns add {}", this.name));
        this.ip("link set lo up");
        this.ip("link add ka0 type veth peer name ka1");
        this.ip("link set ka0 up");
        this.ip("link set ka1 up");
        this
    }

    /// Runs `ip` in it, and gives what it wrote.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// A command that runs in it.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// A listening socket in it.
    pub(crate) fn listen(&self, address: IpAddr, port: u16) -> TcpListener {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind(SocketAddr::new(address, port)).unwrap()
        };
        std::thread::spawn(enter).join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that is ended when dropped: asked first, then killed.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

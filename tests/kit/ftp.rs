//! vsftpd, as real FTP servers that say who they are: by their banner, and by the file `name`.

use crate::command::Running;
use crate::{Lab, until};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

/// vsftpd on real servers; it ends when this is dropped.
#[derive(Debug)]
pub struct Ftp {
    servers: Vec<(String, Running)>,
}

impl Ftp {
    /// Starts one on each of these real servers, with these ports for passive data connections; returns when they listen.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, roles: &[&str], passive: &RangeInclusive<u16>) -> Self {
        let servers = roles.iter().map(|&role| (role.to_owned(), start(lab, role, passive))).collect();
        Self { servers }
    }

    /// Sends a signal to a real server's vsftpd.
    #[track_caller]
    pub fn signal(&mut self, role: &str, signal: Signal) {
        let server = self.servers.iter_mut().find(|(name, _)| name == role);
        server.unwrap_or_else(|| panic!("no vsftpd on {role}")).1.signal(signal);
    }
}

/// The server whose banner a control connection of the client's to the VIP shows. curl asks for a file's size and time, which takes no
/// data connection.
#[track_caller]
#[must_use]
pub fn banner(lab: &Lab) -> String {
    let file = format!("ftp://{}/name", lab.v4("vip"));
    let done = lab.exec("client", &["curl", "-sSv", "-I", "-m", "10", &file]).ok();
    let banner = done.stderr.lines().find_map(|line| line.strip_prefix("< 220 "));
    banner.unwrap_or_else(|| panic!("no banner: {}", done.stderr)).trim().to_owned()
}

fn start(lab: &Lab, role: &str, passive: &RangeInclusive<u16>) -> Running {
    let dir = lab.dir().join(format!("ftp-{role}"));
    // vsftpd wants a root that nobody may write to, and an empty directory for what of it needs no files.
    for part in ["files", "empty"] {
        std::fs::create_dir_all(dir.join(part)).unwrap();
    }
    std::fs::write(dir.join("files/name"), format!("{role}\n")).unwrap();
    let text = format!(
        "listen=YES\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nwrite_enable=NO\n\
         ftpd_banner={role}\nanon_root={dir}/files\nsecure_chroot_dir={dir}/empty\nxferlog_enable=NO\n\
         connect_from_port_20=YES\npasv_min_port={}\npasv_max_port={}\n",
        passive.start(),
        passive.end(),
        dir = dir.display(),
    );
    let file = dir.join("vsftpd.conf");
    std::fs::write(&file, text).unwrap();
    let mut server = lab.spawn(role, &["vsftpd", file.to_str().unwrap()]);
    until("vsftpd listens", Duration::from_secs(10), || {
        assert!(!server.has_ended(), "vsftpd: {}{}", server.stdout(), server.stderr());
        let here = SocketAddr::new(lab.v4(role), 21);
        lab.inside(role, || TcpStream::connect_timeout(&here, Duration::from_secs(1))).is_ok()
    });
    server
}

/// How a client fetches the file `name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// curl; the server tells a port for the data.
    CurlPassive,
    /// curl; the client tells a port, and the server connects to it from port 20.
    CurlActive,
    /// lftp, passive.
    LftpPassive,
    /// lftp, active.
    LftpActive,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::CurlPassive, Self::CurlActive, Self::LftpPassive, Self::LftpActive];
    /// Those that open the data connection themselves.
    pub const PASSIVE: [Self; 2] = [Self::CurlPassive, Self::LftpPassive];

    /// Fetches `name` from an address, as the client with that address: the server that the control connection met, by its
    /// banner, and the one that the data connection met.
    ///
    /// # Errors
    /// What the program said.
    #[track_caller]
    pub fn fetch(self, lab: &Lab, from: &str, server: &str) -> Result<(String, String), String> {
        let url = format!("ftp://{server}/name");
        let done = match self {
            Self::CurlPassive => lab.exec("client", &["curl", "-sSv", "-m", "10", "--interface", from, &url]),
            Self::CurlActive => {
                lab.exec("client", &["curl", "-sSv", "-m", "10", "--interface", from, "-P", from, &url])
            }
            Self::LftpPassive | Self::LftpActive => {
                let passive = if self == Self::LftpPassive { "on" } else { "off" };
                let script = format!(
                    "debug 5; set ftp:passive-mode {passive}; set net:socket-bind-ipv4 {from}; set net:timeout 5; \
                     set net:max-retries 2; set cmd:trace off; open {server}; cat name; bye"
                );
                lab.exec("client", &["lftp", "-c", &script])
            }
        };
        // curl marks what it reads with "< ", lftp with "<--- ".
        let banner = done
            .stderr
            .lines()
            .find_map(|line| line.trim_start_matches(['<', '-', ' ']).strip_prefix("220 "));
        match (done.code, banner, done.stdout.lines().next()) {
            (Some(0), Some(banner), Some(name)) => Ok((banner.trim().to_owned(), name.to_owned())),
            _ => Err(format!("{done:#?}")),
        }
    }
}

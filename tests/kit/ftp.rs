//! vsftpd, as real FTP servers that say who they are: by their banner, and by the file `name`. The file [`LARGE`] is for downloads that
//! go on while something changes.

use crate::command::{Finished, Running};
use crate::{Lab, until};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The name of the large file, and its bytes.
const LARGE: (&str, u64) = ("large", 6 << 20);
/// What a server sends a client, in bytes a second: the large file takes 24 s. That is for the server to see to, as curl's own limit lets
/// some transfers through at once.
const RATE: u32 = 250 << 10;
/// A download of it may take so many seconds.
const LARGE_LIMIT_S: u32 = 120;
/// And what is small, so many.
const SMALL_LIMIT_S: u32 = 10;

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
    let (large, bytes) = LARGE;
    std::fs::File::create(dir.join("files").join(large)).unwrap().set_len(bytes).unwrap();
    let text = format!(
        "listen=YES\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nwrite_enable=NO\n\
         ftpd_banner={role}\nanon_root={dir}/files\nsecure_chroot_dir={dir}/empty\nxferlog_enable=NO\n\
         connect_from_port_20=YES\nanon_max_rate={RATE}\npasv_min_port={}\npasv_max_port={}\n",
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

/// How a client fetches a file.
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

/// A file to fetch.
enum Wanted<'f> {
    /// `name`, to standard output.
    Name,
    /// The large one, into this file.
    Large(&'f str),
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
        let line = self.line(from, server, &Wanted::Name);
        let done = lab.exec("client", &line.iter().map(String::as_str).collect::<Vec<_>>());
        match (done.code, banners(&done).first(), done.stdout.lines().next()) {
            (Some(0), Some(banner), Some(name)) => Ok((banner.clone(), name.to_owned())),
            _ => Err(format!("{done:#?}")),
        }
    }

    fn line(self, from: &str, server: &str, wanted: &Wanted<'_>) -> Vec<String> {
        match self {
            Self::CurlPassive | Self::CurlActive => {
                let limit = if matches!(wanted, Wanted::Name) { SMALL_LIMIT_S } else { LARGE_LIMIT_S };
                let mut line = format!("curl -sSv -m {limit} --interface {from}");
                if self == Self::CurlActive {
                    line += &format!(" -P {from}");
                }
                line += &match wanted {
                    Wanted::Name => format!(" ftp://{server}/name"),
                    Wanted::Large(to) => format!(" -o {to} ftp://{server}/{}", LARGE.0),
                };
                line.split(' ').map(str::to_owned).collect()
            }
            Self::LftpPassive | Self::LftpActive => {
                let passive = if self == Self::LftpPassive { "on" } else { "off" };
                let rest = match wanted {
                    Wanted::Name => {
                        format!("set net:timeout 5; set net:max-retries 2; open {server}; cat name")
                    }
                    // Whatever has begun is not begun anew.
                    Wanted::Large(to) => format!(
                        "set net:timeout {LARGE_LIMIT_S}; set net:max-retries 1; open {server}; get {} -o {to}",
                        LARGE.0
                    ),
                };
                let script = format!(
                    "debug 5; set ftp:passive-mode {passive}; set net:socket-bind-ipv4 {from}; set cmd:trace off; {rest}; bye"
                );
                ["lftp", "-c", &script].map(str::to_owned).to_vec()
            }
        }
    }
}

/// The banners of the control connections that a client has had.
fn banners(done: &Finished) -> Vec<String> {
    // curl marks what it reads with "< ", lftp with "<--- ".
    let its =
        |line: &str| Some(line.trim_start_matches(['<', '-', ' ']).strip_prefix("220 ")?.trim().to_owned());
    done.stderr.lines().filter_map(its).collect()
}

/// Downloads of the large file that go on while something changes: each has to be complete in the end, over the control connection and
/// the data connection that it began with.
#[derive(Debug)]
pub struct Transfers(Vec<(Running, PathBuf)>);

impl Transfers {
    /// Starts one for each of these clients, with its address.
    #[must_use]
    pub fn start(lab: &Lab, clients: &[(Client, &str)], server: &str) -> Self {
        let start = |(number, (client, from)): (usize, &(Client, &str))| {
            let to = lab.dir().join(format!("transfer-{number}"));
            // lftp would not write over it.
            let _ = std::fs::remove_file(&to);
            let line = client.line(from, server, &Wanted::Large(to.to_str().unwrap()));
            (lab.spawn("client", &line.iter().map(String::as_str).collect::<Vec<_>>()), to)
        };
        Self(clients.iter().enumerate().map(start).collect())
    }

    /// Waits for their ends: all of them are complete. The servers that they met, in the clients' order.
    #[track_caller]
    #[must_use]
    pub fn complete_across(self, what: &str) -> Vec<String> {
        let mut failed = Vec::new();
        let mut servers = Vec::new();
        for (running, file) in self.0 {
            let done = running.finish(Duration::from_secs(LARGE_LIMIT_S.into()));
            let came = file.metadata().map_or(0, |file| file.len());
            let mut met = banners(&done);
            match met.pop() {
                Some(server) if done.code == Some(0) && came == LARGE.1 && met.is_empty() => {
                    servers.push(server)
                }
                last => failed.push(format!("{came} bytes of {last:?}, before it {met:?}: {done:#?}")),
            }
        }
        assert!(failed.is_empty(), "transfers across {what}: {failed:#?}");
        servers
    }
}

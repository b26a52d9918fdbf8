//! The command line: what is given on it, turned into calls, and the exit codes.
//!
//! Invariants: 0 is fine, 1 a failure at run time, 2 a usage or configuration error, 3 a missing privilege. Errors go
//! to standard error as `xlvs: …` (those of a configuration file begin with the file's name instead); standard output
//! carries only what was asked for.

mod adm;
mod check;
mod client;
mod completions;
mod convert;
mod detach;
mod doctor;
mod mark;
mod real_server;
mod run;
mod settings;
mod status;
mod sync;
mod wrap;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use serde::Serialize;

use crate::config::{self, ConnectionsFile, DEFAULT_SOCKET, GroupName, InterfaceName, MarksFrom};
use crate::doctor::Check;
pub(crate) use crate::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  failure at run time
  2  usage or configuration error
  3  a privilege is missing (capability, limit, kernel option)";

const RUN_HELP: &str = "\
Files:
  --config FILE            the configuration, in TOML or as Piranha's lvs.cf; `xlvs check FILE` tells whether it is right
  /run/xlvs/xlvs.sock      the daemon's socket (--socket, or XLVS_SOCKET, or director.socket); only for the daemon's user and
                           root, unless --socket-group or --socket-read-group (or these keys of director) name others
  /var/lib/xlvs            what survives the daemon (--state-dir, or director.state_dir)
  /run/xlvs/xlvs.connections
                           the connections, which go on after a restart or a crash (--connections-file, or
                           director.connections_file); to start without them, remove it while no daemon runs
  /sys/fs/bpf/xlvs         the steering program's pins; mounted if it is missing

Signals:
  SIGHUP                   read the file again, and that of --marks; a wrong one is refused whole, and nothing changes
  SIGUSR2                  upgrade in place: start the program anew, as it is on disk now, with --takeover
  SIGTERM, SIGINT          detach the steering program and end
  SIGKILL                  leaves the steering program attached: frames of a VIP are dropped, never answered by the
                           kernel, until a daemon is started again or `xlvs detach IFACE` is run

Upgrade in place (--takeover, or SIGUSR2 to the director that runs):
  The new process prepares all that it can while the other one forwards, then takes over its queues, its connections and its
  socket; the other one ends with exit code 0. If that fails, whatever the reason, the other one goes on. socket, state_dir and
  connections_file have to be the same; everything else may differ.

A file to begin with:
  [director]
  interface = \"eth0\"
  [[service]]
  address = \"192.0.2.10\"
  port = 80
  [[service.destination]]
  address = \"192.0.2.11\"
  [[service.destination]]
  address = \"192.0.2.12\"

Exit codes:
  0  ended by a signal, or another process took over
  1  failure at run time
  2  usage or configuration error
  3  a privilege is missing (capability, limit, kernel option)";

const CONVERT_HELP: &str = "\
Examples:
  xlvs convert lvs.cf --marks marks.sh --to toml > director.toml
  xlvs convert lvs.cf --to keepalived-vrrp --role backup > keepalived.conf
  xlvs convert keepalived.conf --to toml > director.toml

Which format a file is of is told by its name (.toml, .cf), else by its first line that is no comment.

lvs.cf (Piranha): all of it; `run` and `check` read it natively too. A VIP is served while it is an address of the host. The
  pair of directors becomes a VRRP configuration of keepalived, which puts the VIPs, with their labels, on the active one;
  without keepalived they are put there by hand (ip address add).
keepalived.conf: virtual servers, their real servers and checks. What has no counterpart is listed in comments at the top
  and on standard error, and stays keepalived's, which runs unmodified under `xlvs wrap`. Parameters ($NAME=value) and
  conditions (@ID, @^ID) are replaced as keepalived does; sequences and lists (~SEQ, ~LST) have to be written out.

Exit codes:
  0  fine
  1  failure at run time
  2  usage error, or the file is wrong";

const REAL_SERVER_HELP: &str = "\
What `up` does in the network namespace where it runs:
  - sets net.ipv4.conf.{all,lo}.arp_ignore to 1 and net.ipv4.conf.{all,lo}.arp_announce to 2, so that this host does
    not answer or announce ARP for a VIP
  - puts each VIP on lo, as /32 or /128, without duplicate address detection
  - adds the host route `VIP dev lo` (IPv4; the kernel adds IPv6's by itself)
`down` takes back exactly that, and only that: an address or route that was there before stays, and the sysctls get
their former values back with the last VIP. Both are safe to repeat.

Files:
  /run/xlvs/real-server-NUMBER.json   what `up` has done, a file for each network namespace

Exit codes:
  0  done, or nothing to do
  1  failure at run time; what was done stays remembered
  2  usage error
  3  CAP_NET_ADMIN or the right to write /run/xlvs is missing";

const DOCTOR_HELP: &str = "\
On a director it asks the running daemon what it serves; without one it takes that from the configuration file. On a real
server it looks at the VIPs that are named, or at those on lo. Nothing is changed.

Each line: state, check, what was looked at, what was found, and what to do.
  ok        as it has to be
  warning   works, but less well, or only in some set-ups
  broken    clients lose something
  unknown   could not be looked at

Exit codes:
  0  nothing is broken
  1  something is broken, or nothing could be looked at
  2  usage or configuration error
  3  nothing is known to be broken, and something could not be looked at for lack of a privilege
";

const WRAP_HELP: &str = "\
Examples:
  xlvs wrap -- ipvsadm -Ln
  xlvs wrap -- keepalived -n -l

What it does: puts libxlvs_preload.so into the program (LD_PRELOAD) and names the daemon's socket to it (XLVS_SOCKET),
then runs it in its own place. Whatever the program says to IPVS in the kernel goes to the daemon, and the files
/proc/net/ip_vs, ip_vs_conn, ip_vs_conn_sync, ip_vs_stats and ip_vs_stats_percpu come from there; all else (routes,
VRRP, other netlink) stays the kernel's.
Programs that it starts are treated alike.

Environment:
  XLVS_PRELOAD     the library, if it is neither next to xlvs nor in ../lib/xlvs from there
  XLVS_DIAL_MS     how long the program waits for a daemon that is gone [default: 200]
  XLVS_ANSWER_MS   how long it waits for an answer [default: 500]

Exit codes:
  that of the program, once it runs
  1  library or program not found, or the program is static or set-uid: no library can be loaded into it
  2  usage error";

/// A layer-4 load balancer (director) by direct routing, on AF_XDP
#[derive(Debug, Parser)]
#[command(name = "xlvs", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the director in the foreground
    #[command(after_long_help = RUN_HELP)]
    Run(RunArgs),
    /// Check a configuration file and start nothing
    ///
    /// Prints every error with its line, what was found and what is allowed; exit code 2 if there is one.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// As for `run`
        #[arg(long, value_name = "IF")]
        interface: Vec<InterfaceName>,
        /// As for `run`
        #[arg(long, value_name = "FILE|iptables")]
        marks: Option<MarksFrom>,
        /// As for `convert`
        #[arg(long, value_name = "ID")]
        config_id: Option<String>,
    },
    /// Turn Piranha's lvs.cf or keepalived.conf into a file of another format
    ///
    /// Prints the other file; what has no counterpart in it is said on standard error.
    #[command(after_long_help = CONVERT_HELP)]
    Convert(convert::ConvertArgs),
    /// Take the steering program off an interface, after a daemon was killed for good
    #[command(after_help = EXIT_CODES)]
    Detach {
        /// The interface
        #[arg(value_name = "IFACE")]
        interface: InterfaceName,
    },
    /// Look for what commonly breaks direct routing, on a director or a real server
    #[command(after_long_help = doctor_help())]
    Doctor(doctor::DoctorArgs),
    /// Show what the running director serves, forwards and drops
    #[command(after_help = EXIT_CODES)]
    Status {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// List or change the running director's settings
    ///
    /// Settings have the names, defaults and meanings of the kernel's net.ipv4.vs.*. A change is kept on disk, and lasts until the
    /// configuration file says otherwise at its next reading.
    #[command(after_help = EXIT_CODES)]
    Settings {
        /// A setting to show, or to change and show [default: show all]
        #[arg(value_name = "NAME[=VALUE]")]
        settings: Vec<settings::Assignment>,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// List or change the running director's mark rules
    #[command(subcommand_value_name = "add|del|list|import")]
    Mark {
        #[command(subcommand)]
        action: mark::MarkAction,
    },
    /// ipvsadm's commands against the running director
    ///
    /// The same as a link to xlvs with the name ipvsadm, ipvsadm-save or ipvsadm-restore.
    #[command(disable_help_flag = true, after_help = EXIT_CODES)]
    Adm {
        #[command(flatten)]
        socket: SocketArg,
        /// ipvsadm's words, such as `-Ln`; `-h` lists them
        #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Prepare this host to answer for a VIP, as a real server
    #[command(after_long_help = REAL_SERVER_HELP, subcommand_value_name = "up|down")]
    RealServer {
        #[command(subcommand)]
        action: RealServerAction,
    },
    /// How it stands with other directors, and the key that they have in common
    #[command(subcommand_value_name = "status|key")]
    Sync {
        #[command(subcommand)]
        action: SyncAction,
    },
    /// Run ipvsadm or keepalived, unmodified, so that it drives the director
    #[command(after_long_help = WRAP_HELP)]
    Wrap {
        #[command(flatten)]
        socket: SocketArg,
        /// The program and its arguments
        #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
        command: Vec<OsString>,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum SyncAction {
    /// Show what other directors are told and tell, and whether all of their connections are known here
    #[command(after_help = EXIT_CODES)]
    Status {
        /// Exit with 1 unless all of their connections are known here: for a track_script of keepalived's
        #[arg(long)]
        ready: bool,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// Make a new key, for all directors' sync.key_file
    #[command(after_help = EXIT_CODES)]
    Key {
        /// A file that there is not yet
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

fn doctor_help() -> String {
    let checks: String = Check::ALL.iter().map(|(_, id, what)| format!("  {id:<20} {what}\n")).collect();
    format!("{DOCTOR_HELP}\nChecks, by their identifiers:\n{checks}")
}

#[derive(Debug, Args)]
struct SocketArg {
    /// The daemon's socket [default: /run/xlvs/xlvs.sock]
    #[arg(long, value_name = "PATH", env = "XLVS_SOCKET", value_parser = socket_path)]
    socket: Option<PathBuf>,
}

impl SocketArg {
    fn path(self) -> PathBuf {
        self.socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// An interface to serve; again for each more. Wins over the file's
    #[arg(long, value_name = "IF", required_unless_present = "config")]
    interface: Vec<InterfaceName>,
    /// The configuration file, in TOML or Piranha's lvs.cf
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where firewall marks come from: a script of iptables lines, or `iptables` for the host's rules. Wins over the file's
    #[arg(long, value_name = "FILE|iptables")]
    marks: Option<MarksFrom>,
    #[command(flatten)]
    socket: SocketArg,
    /// A group whose users may use the socket as root may
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<GroupName>,
    /// A group whose users may list and ask on the socket, and change nothing
    #[arg(long, value_name = "GROUP")]
    socket_read_group: Option<GroupName>,
    /// The directory of what survives the daemon [default: /var/lib/xlvs]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The file that connections outlive the daemon in, `service-manager` or `none` [default: beside the socket]
    #[arg(long, value_name = "FILE")]
    connections_file: Option<ConnectionsFile>,
    /// Take over from the director that runs, with all its connections: an upgrade in place, as by SIGUSR2
    #[arg(long)]
    takeover: bool,
}

#[derive(Debug, Subcommand)]
enum RealServerAction {
    /// Take VIPs on
    #[command(after_long_help = REAL_SERVER_HELP)]
    Up {
        /// The VIPs, IPv4 or IPv6
        #[arg(value_name = "VIP", required = true, value_parser = vip)]
        vips: Vec<IpAddr>,
    },
    /// Give VIPs back
    #[command(after_long_help = REAL_SERVER_HELP)]
    Down {
        /// The VIPs, IPv4 or IPv6
        #[arg(value_name = "VIP", required = true, value_parser = vip)]
        vips: Vec<IpAddr>,
    },
}

fn vip(text: &str) -> Result<IpAddr, config::address::AddressRefused> {
    config::address::parse(text)
}

/// A path that fits a socket's address, whose 108 bytes end with a 0.
fn socket_path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.len() > 107 {
        return Err("allowed: a path of 1 to 107 bytes");
    }
    Ok(PathBuf::from(text))
}

/// Does what the process's arguments say. Wrong ones end the process with exit code 2.
pub(crate) fn main() -> ExitCode {
    if let Some(done) = called_as_ipvsadm() {
        return ended(done);
    }
    let done = match Cli::parse().command {
        Command::Adm { socket, words } => {
            return ended(adm::adm(&socket.path(), adm::Called::Adm, "xlvs adm", &words));
        }
        Command::Doctor(args) => return ended(doctor::doctor(args)),
        Command::Run(args) => run::run(args),
        Command::Check { file, interface, marks, config_id } => {
            check::check(&file, interface, marks, config_id)
        }
        Command::Convert(args) => convert::convert(args),
        Command::Detach { interface } => detach::detach(&interface),
        Command::Status { json, socket } => status::status(&socket.path(), json),
        Command::Sync { action: SyncAction::Status { ready, json, socket } } => {
            sync::status(&socket.path(), json, ready)
        }
        Command::Sync { action: SyncAction::Key { file } } => sync::key(&file),
        Command::Settings { settings, socket } => settings::settings(&socket.path(), &settings),
        Command::Mark { action } => mark::mark(action),
        Command::RealServer { action: RealServerAction::Up { vips } } => real_server::up(&vips),
        Command::RealServer { action: RealServerAction::Down { vips } } => real_server::down(&vips),
        Command::Wrap { socket, command } => {
            wrap::wrap(&socket.socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)), &command)
        }
        Command::Completions { shell } => completions::print(shell),
    };
    ended(done.map(|()| 0))
}

/// What comes of the program when it is called as one of ipvsadm's.
fn called_as_ipvsadm() -> Option<Result<u8, Failure>> {
    let mut words = std::env::args_os();
    let program = PathBuf::from(words.next()?);
    let called = adm::Called::of(&program)?;
    let socket = std::env::var_os("XLVS_SOCKET").map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
    let name = program.file_name()?.to_string_lossy().into_owned();
    Some(adm::adm(&socket, called, &name, &words.collect::<Vec<_>>()))
}

fn ended(done: Result<u8, Failure>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // When standard error is closed there is nobody to tell; the exit code still does.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

/// What conditions in keepalived.conf are compared with: what is told, else the first part of the host's name.
fn config_id(told: Option<String>) -> String {
    told.unwrap_or_else(|| {
        let host = rustix::system::uname();
        let name = host.nodename().to_string_lossy();
        name.split('.').next().unwrap_or_default().to_owned()
    })
}

/// Writes what a daemon has said to standard output, as text or as one JSON object in a line.
///
/// # Errors
/// When it can't be written.
fn show(said: &(impl Serialize + Display), json: bool) -> Result<(), Failure> {
    if !json {
        return print(said.to_string());
    }
    let text = serde_json::to_string(said)
        .map_err(|error| Failure::Runtime(format!("the status can't be written: {error}")))?;
    print(text + "\n")
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// When it can't be written for another reason.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_ref()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("standard output can't be written: {error}")))
        }
        _ => Ok(()),
    }
}

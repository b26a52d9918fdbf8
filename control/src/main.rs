//! `xlvs`: the director's daemon, its command line, and the set-up of real servers.

mod cli;
#[allow(dead_code, reason = "the daemon reads what the command line does not")]
mod config;
mod daemon;

fn main() -> std::process::ExitCode {
    cli::main()
}

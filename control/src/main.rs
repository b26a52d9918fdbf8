//! `xlvs`: the director's daemon, its command line, and the set-up of real servers.

fn main() -> std::process::ExitCode {
    xlvs_control::main()
}

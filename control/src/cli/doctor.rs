//! `xlvs doctor`: what to look at, how to show it, and the exit code.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{Failure, SocketArg};
use crate::api;
use crate::config::{self, Overrides};
use crate::doctor::{self, DoctorError, Report, Vip};

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The director's configuration file, for a director whose daemon does not run
    #[arg(long, value_name = "FILE", conflicts_with = "real_server")]
    config: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
    /// Look at this host as a real server, of these VIPs [default: those on lo]
    #[arg(long, value_name = "VIP[:PORT]", num_args = 0.., value_parser = vip)]
    real_server: Option<Vec<Vip>>,
}

/// A VIP with or without a port: 192.0.2.10, 192.0.2.10:80, 2001:db8::10, [2001:db8::10]:80.
fn vip(text: &str) -> Result<Vip, config::address::AddressRefused> {
    if let Ok(socket) = text.parse::<SocketAddr>()
        && socket.port() != 0
    {
        let address: IpAddr = config::address::parse(&socket.ip().to_string())?;
        return Ok(Vip { address, port: Some(socket.port()) });
    }
    Ok(Vip { address: config::address::parse(text)?, port: None })
}

/// Looks, tells, and gives the exit code.
pub(super) fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    let DoctorArgs { config, socket, json, real_server } = args;
    let report = match real_server {
        Some(vips) => wait(doctor::real_server(vips))?,
        None => director(config.as_deref(), socket.socket)?,
    };
    show(&report, json)
}

/// Looks at the director that runs, else at the one in the file; without either, at this host as a real server if it has a VIP.
fn director(config: Option<&Path>, socket: Option<PathBuf>) -> Result<Report, Failure> {
    let overrides = Overrides { socket: socket.clone(), ..Overrides::default() };
    let configuration = config.map(|file| config::load(file, &overrides)).transpose()?;
    let path = match &configuration {
        Some(configuration) => configuration.director.socket.clone(),
        None => SocketArg { socket }.path(),
    };
    match super::client::wait(api::client::status(&path)) {
        Ok(status) => wait(doctor::running_director(&status)),
        Err(failure) => match configuration {
            Some(configuration) => wait(doctor::configured_director(&configuration)),
            None => without_director(failure),
        },
    }
}

fn without_director(failure: Failure) -> Result<Report, Failure> {
    if let Failure::Privilege(_) = failure {
        return Err(failure);
    }
    let vips = wait(doctor::vips_on_lo())?;
    if vips.is_empty() {
        return Err(Failure::Runtime(format!(
            "there is no director to look at, and no VIP on lo: start one, or name its file (xlvs doctor --config FILE), or a \
             real server's VIPs (xlvs doctor --real-server VIP...); {}",
            failure.to_string().trim_start_matches("xlvs: ")
        )));
    }
    wait(doctor::real_server(vips))
}

fn show(report: &Report, json: bool) -> Result<u8, Failure> {
    super::print(if json {
        report.json().map_err(|error| Failure::Runtime(format!("the findings can't be written: {error}")))?
    } else {
        report.text()
    })?;
    Ok(report.exit_code())
}

fn wait<T>(work: impl Future<Output = Result<T, DoctorError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("no runtime can be had: {error}")))?;
    runtime.block_on(work).map_err(|error| Failure::Runtime(error.to_string()))
}

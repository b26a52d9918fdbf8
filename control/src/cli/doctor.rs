//! `xlvs doctor`: what to look at, how to show it, and the exit code.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use super::Failure;
use crate::config;
use crate::doctor::{self, DoctorError, Report, Vip};

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
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
    let DoctorArgs { json, real_server, .. } = args;
    let report = match real_server {
        Some(vips) => wait(doctor::real_server(vips))?,
        None => wait(doctor::real_server(Vec::new()))?,
    };
    show(&report, json)
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

//! The host's own mark rules: with `marks = "iptables"` they stand behind the file's, as they are at each reading of the file.

use crate::config::{self, Configuration, MarkSource};
use crate::iptables::{self, HostError};

/// The most refused rules that are told one by one.
const TOLD: usize = 100;

/// Fills in the host's rules if the configuration wants them. Those that can't be had are left out, and the log says why. This
/// waits for programs; the workers don't.
///
/// # Errors
/// When the host can't be asked.
pub(super) async fn read_hosts(configuration: &mut Configuration) -> Result<(), HostError> {
    if configuration.director.marks != MarkSource::Iptables {
        return Ok(());
    }
    // A program that hangs must not keep this thread from its own work for longer than it has to.
    let read = tokio::task::spawn_blocking(iptables::from_host).await;
    let host = read.map_err(|_| HostError::Interrupted)??;
    for refusal in host.refused.iter().take(TOLD) {
        tracing::warn!("a mark rule of the host is left out: {refusal}");
    }
    if host.refused.len() > TOLD {
        tracing::warn!("{} more mark rules of the host are left out", host.refused.len() - TOLD);
    }
    let rules = host.rules.into_iter().map(|(rule, _)| rule).collect();
    let (its, told) = config::of_director(rules, "the host", configuration);
    told.iter().for_each(|line| tracing::warn!("{line}"));
    tracing::info!("mark rules of the host: {}", its.len());
    configuration.host_marks = its;
    Ok(())
}

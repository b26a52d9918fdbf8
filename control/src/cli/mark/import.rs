//! `xlvs mark import`: the rules of an iptables text, added to the running daemon's.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use crate::adm::names::Ports;
use crate::api::client::ClientError;
use crate::api::{MarkEntry, Xlvs, client};
use crate::cli::client::wait;
use crate::cli::{Failure, print};
use crate::iptables::{self, Imported, MAX_TEXT_BYTES};
use crate::registry::{MarkSpec, Owner};

/// Adds the rules of `file` to the daemon at `socket`; without one, it only tells them.
///
/// # Errors
/// When a rule is refused, by the reader or the daemon, or there is no daemon.
pub(super) fn import(file: &Path, socket: Option<&Path>) -> Result<(), Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let text = read(file).map_err(|error| Failure::Runtime(format!("{name} can't be read: {error}")))?;
    let ports = Ports::parse(&std::fs::read_to_string("/etc/services").unwrap_or_default());
    let Imported { rules, refused, ignored, .. } = iptables::parse(&text, &ports);
    // A closed standard error is no reason to add nothing.
    let tell = |line: String| drop(writeln!(io::stderr(), "xlvs: {name}: {line}"));
    refused.iter().for_each(|refusal| tell(format!("refused: {refusal}")));
    let count = rules.len() + refused.len();
    if count == 0 {
        tell(format!("no rule of chain PREROUTING in table mangle ({ignored} of other tables and chains)"));
    }
    let mut refusals = refused.len();
    let (done, failure) = match socket {
        Some(socket) => {
            let (done, failure) = wait(add(socket, rules))?;
            for Refused { line, rule, reason } in &done.refused {
                tell(format!("refused: line {line}: {reason}: {rule}"));
            }
            refusals += done.refused.len();
            (done.told, failure)
        }
        None => (rules.iter().fold(String::new(), |text, (rule, _)| text + &rule.to_string() + "\n"), None),
    };
    print(done)?;
    // What was done before the daemon went away is told all the same.
    if let Some(failure) = failure {
        return wait(std::future::ready(Err(failure)));
    }
    match refusals {
        0 => Ok(()),
        refusals => Err(Failure::Runtime(format!("{name}: refused {refusals} of {count} mark rules"))),
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let most = MAX_TEXT_BYTES + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(most).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {} MiB, the most that is read",
            MAX_TEXT_BYTES >> 20
        )));
    }
    // Only comments may hold what is no UTF-8, and they are passed over.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What became of the rules.
#[derive(Default)]
struct Added {
    told: String,
    refused: Vec<Refused>,
}

/// What the daemon did not take.
struct Refused {
    line: usize,
    rule: MarkSpec,
    reason: String,
}

/// Adds the rules one by one; what was done, and why it ended before the last one.
async fn add(
    socket: &Path,
    rules: Vec<(MarkSpec, usize)>,
) -> Result<(Added, Option<ClientError>), ClientError> {
    let known = client::marks(socket).await?;
    let known: HashSet<String> = known.into_iter().map(|entry| entry.rule.to_string()).collect();
    let mut added = Added::default();
    for (rule, line) in rules {
        if known.contains(&rule.to_string()) {
            let _ = writeln!(added.told, "{rule} (there already)");
            continue;
        }
        let entry = MarkEntry { owner: Owner::Tool, rule: rule.clone() };
        match client::change(socket, Xlvs::Mark(entry)).await {
            Ok(()) => drop(writeln!(added.told, "{rule}")),
            Err(ClientError::Refused(reason)) => added.refused.push(Refused { line, rule, reason }),
            Err(other) => return Ok((added, Some(other))),
        }
    }
    Ok((added, None))
}

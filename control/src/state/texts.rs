//! The state's two files as texts, without a directory: what the fuzz targets compare.

use super::journal;
use super::operation::Operation;
use super::snapshot::{self, Content, Stamp};
use crate::registry::Registry;

/// Everything that is kept of a registry.
pub(crate) fn kept(registry: &Registry) -> String {
    snapshot::encode(&Content::gather(registry)).unwrap_or_default()
}

/// Puts a registry's state file into another, empty one.
///
/// # Errors
/// What was damaged or refused.
pub(crate) fn copy(from: &Registry, to: &mut Registry) -> Result<(), String> {
    let (file, _) = snapshot::seal(1, &kept(from));
    let (content, ..) = snapshot::open(file.as_bytes()).map_err(|damage| damage.to_string())?;
    all(content.restore(to))
}

/// A journal that follows a state file.
#[derive(Debug)]
pub(crate) struct Journal(Vec<u8>);

impl Default for Journal {
    fn default() -> Self {
        Self(journal::head(Stamp::default()).unwrap_or_default())
    }
}

impl Journal {
    /// Writes a line.
    pub(crate) fn note(&mut self, operation: &Operation) {
        self.0.extend(journal::entry(operation).unwrap_or_default());
    }

    /// Carries all of it out again on the registry that the state file gave.
    ///
    /// # Errors
    /// What was damaged or refused.
    pub(crate) fn replay(&self, registry: &mut Registry) -> Result<(), String> {
        let journal = journal::read(&self.0, Stamp::default()).ok_or("it follows another file")?;
        if let Some(damage) = journal.damage {
            return Err(damage.to_string());
        }
        let done = |operation: Result<Operation, String>| {
            operation.and_then(|its| its.perform(registry).map_err(|error| error.to_string())).err()
        };
        all(journal.operations.into_iter().filter_map(done).collect())
    }
}

fn all(refused: Vec<String>) -> Result<(), String> {
    if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
}

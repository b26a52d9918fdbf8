//! `xlvs status`: what the running daemon says of itself.

use std::path::Path;

use super::Failure;

/// Asks the daemon behind `socket` and prints its answer, as a text or as one JSON object.
///
/// # Errors
/// When no daemon answers.
pub(crate) fn status(socket: &Path, _json: bool) -> Result<(), Failure> {
    Err(Failure::Runtime(format!("{}: no daemon in this build", socket.display())))
}

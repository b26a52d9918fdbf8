//! `xlvs status`: what the running daemon says of itself.

use std::path::Path;

use super::Failure;
use super::client::wait;
use crate::api::client;

/// Asks the daemon behind `socket` and prints its answer, as a text or as one JSON object.
///
/// # Errors
/// When no daemon answers.
pub(crate) fn status(socket: &Path, json: bool) -> Result<(), Failure> {
    let status = wait(client::status(socket))?;
    if json {
        let mut text = serde_json::to_string(&status)
            .map_err(|error| Failure::Runtime(format!("the status can't be written: {error}")))?;
        text.push('\n');
        super::print(text)
    } else {
        super::print(status.to_string())
    }
}

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
    super::show(&wait(client::status(socket))?, json)
}

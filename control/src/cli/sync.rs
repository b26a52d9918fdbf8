//! `xlvs sync`: how it stands with other directors, and the key that they have in common.

use std::path::Path;

use super::Failure;
use super::client::wait;
use crate::api::client;
use crate::synchronization::bulk::Key;

/// Prints what the running daemon says of synchronisation. With `ready`, fails unless it has caught up with the others; without
/// a key to ask them with, it has.
///
/// # Errors
/// When no daemon answers, or it is not ready and should be.
pub(super) fn status(socket: &Path, json: bool, ready: bool) -> Result<(), Failure> {
    let sync = wait(client::status(socket))?.sync;
    super::show(&sync, json)?;
    match sync.catch_up.filter(|its| ready && !its.ready) {
        Some(its) => {
            Err(Failure::Runtime(format!("not caught up with the other directors yet: {}", its.progress)))
        }
        None => Ok(()),
    }
}

/// Makes a new key.
///
/// # Errors
/// When there is such a file already, or it can't be written.
pub(super) fn key(file: &Path) -> Result<(), Failure> {
    Key::create(file).map(drop).map_err(|error| Failure::Runtime(error.to_string()))
}

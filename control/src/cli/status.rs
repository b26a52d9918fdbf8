//! `xlvs status`: what the running daemon says of itself.

use std::path::Path;

use super::Failure;
use crate::api::client;

/// Asks the daemon behind `socket` and prints its answer, as a text or as one JSON object.
///
/// # Errors
/// When no daemon answers.
pub(crate) fn status(socket: &Path, json: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("no runtime can be had: {error}")))?;
    let status = runtime.block_on(client::status(socket)).map_err(|error| match error {
        client::ClientError::NotPermitted { .. } => Failure::Privilege(error.to_string()),
        _ => Failure::Runtime(error.to_string()),
    })?;
    if json {
        let mut text = serde_json::to_string(&status)
            .map_err(|error| Failure::Runtime(format!("the status can't be written: {error}")))?;
        text.push('\n');
        super::print(text)
    } else {
        super::print(status.to_string())
    }
}

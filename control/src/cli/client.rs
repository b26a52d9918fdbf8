//! What commands that talk to the daemon have in common.

use std::future::Future;

use super::Failure;
use crate::api::client::ClientError;

/// Waits for what the daemon says.
///
/// # Errors
/// When it says nothing, or no.
pub(super) fn wait<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("no runtime can be had: {error}")))?;
    runtime.block_on(answer).map_err(|error| match error {
        ClientError::NotPermitted { .. } | ClientError::Forbidden(_) => Failure::Privilege(error.to_string()),
        _ => Failure::Runtime(error.to_string()),
    })
}

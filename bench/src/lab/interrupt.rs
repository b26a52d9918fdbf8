//! Ctrl-C and SIGTERM: a run on the wire ends at the next pause, and takes down what it has put up. A second one ends the
//! process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The longest that a signal is not noticed.
const SLICE: Duration = Duration::from_millis(10);

/// Has signals noticed from now on.
pub(crate) fn watch() -> Result<(), String> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&INTERRUPTED))
            .and_then(|_| flag::register(signal, Arc::clone(&INTERRUPTED)))
            .map_err(|error| format!("signals can't be watched: {error}"))?;
    }
    Ok(())
}

/// Lets time pass.
///
/// # Errors
/// When a signal came.
pub(crate) fn pause(time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    loop {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

//! What the daemon tells a service manager that asked for it by NOTIFY_SOCKET, as systemd does for `Type=notify`. Nobody else
//! notices, and a manager that can't be told is no reason not to serve.

use sd_notify::NotifyState;

/// Frames are taken, and the file that was read last is in force.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The file is read again.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("no time for the service manager: {error}"),
    }
}

/// The service is another process from here on, which says the rest by itself.
pub(super) fn tell_successor(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// The director ends because it was told to.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager can't be told {states:?}: {error}");
    }
}

//! Has the state on disk. A failure is logged once, until it works again; meanwhile it is tried each second, and each change that
//! was made is told to be lost.

use super::Daemon;
use crate::state::StateError;

impl Daemon {
    /// Has the changes since the last time on disk.
    ///
    /// # Errors
    /// When they can't be written; they are made all the same.
    pub(super) fn keep(&mut self) -> Result<(), StateError> {
        let was_behind = self.store.is_behind();
        let kept = self.store.commit(&self.registry);
        tell(&kept, was_behind);
        kept
    }

    /// Has everything on disk that tools and the file have said up to now.
    pub(super) fn keep_all(&mut self) {
        let was_behind = self.store.is_behind();
        tell(&self.store.save(&self.registry), was_behind);
    }
}

fn tell(kept: &Result<(), StateError>, was_behind: bool) {
    match kept {
        Err(error) if !was_behind => tracing::error!("{error}"),
        Ok(()) if was_behind => tracing::info!("the state is on disk again, with all changes"),
        _ => {}
    }
}

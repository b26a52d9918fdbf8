//! Who is let in before it has proven that it has the key: so many at a time. A new one makes the oldest go, so that who connects and
//! stays silent keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who is in, by the order in which they came.
#[derive(Debug)]
pub(super) struct Door {
    most: usize,
    guests: Mutex<Guests>,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    /// Dropping one shows it out.
    inside: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One that was let in. It stays until this is dropped, or until it is shown out.
#[derive(Debug)]
pub(super) struct Guest {
    door: Arc<Door>,
    number: u64,
    shown_out: oneshot::Receiver<()>,
}

impl Door {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), guests: Mutex::default() })
    }

    /// Lets one in. True with it if another had to go.
    pub(super) fn enter(self: &Arc<Self>) -> (Guest, bool) {
        let mut guests = self.guests();
        let number = guests.next;
        guests.next += 1;
        let has_to_go = guests.inside.len() >= self.most;
        if has_to_go {
            guests.inside.pop_first();
        }
        let (stays, shown_out) = oneshot::channel();
        guests.inside.insert(number, stays);
        (Guest { door: Arc::clone(self), number, shown_out }, has_to_go)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Ends when the guest has to go.
    pub(super) async fn shown_out(&mut self) {
        let _ = (&mut self.shown_out).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.guests().inside.remove(&self.number);
    }
}

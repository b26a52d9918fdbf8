//! Memory ahead of need: a thread of its own touches what connections to come will be kept in, so that no worker waits for the
//! kernel to find and clear a huge page, which takes it up to some milliseconds.
//!
//! Bound: twice as many records as were handed out since it last looked, and at least [`LEAST`] of each family; the stock of timers'
//! pieces; the index of a family of which there are services.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::table::ConnectionTable;
use crate::director::ConnectionTables;

/// The fewest records that are ready: at a million new connections a second they last for more than a [`PAUSE`].
const LEAST: u32 = 1 << 15;
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What is done for one table.
#[derive(Debug)]
struct Ahead<const WORDS: usize> {
    table: Weak<ConnectionTable<WORDS>>,
    /// The slots that were handed out when it last looked.
    used: u32,
}

impl<const WORDS: usize> Ahead<WORDS> {
    fn new(table: &Arc<ConnectionTable<WORDS>>) -> Self {
        Self { table: Arc::downgrade(table), used: table.records.used() }
    }

    /// Whether the table is still there.
    fn look(&mut self) -> bool {
        let Some(table) = self.table.upgrade() else { return false };
        let used = table.records.used();
        table.records.make_ready((used - self.used.min(used)).saturating_mul(2).max(LEAST));
        self.used = used;
        true
    }
}

/// Touches what is needed in any case, and starts the thread for the rest, which calls `begin` first and ends by itself when the
/// tables are gone.
///
/// # Errors
/// When the kernel refuses a thread.
pub fn keep_memory_ahead(tables: &ConnectionTables, begin: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut v4, mut v6) = (Ahead::new(&tables.v4), Ahead::new(&tables.v6));
    // Both families' have the same one.
    let population = Arc::downgrade(&tables.v4.population);
    let mut look = move || {
        population.upgrade().is_some_and(|population| {
            population.make_ready();
            v4.look() && v6.look()
        })
    };
    let _ = look();
    thread::Builder::new().name("xlvs-memory".to_owned()).spawn(move || {
        begin();
        while look() {
            thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::connection::table::Population;
    use crate::flow::{HashSeed, V4_WORDS, V6_WORDS};

    #[test]
    fn memory_is_ready_for_twice_what_was_used_and_never_beyond_the_table() {
        let population = Arc::new(Population::new(1 << 20));
        let table = Arc::new(ConnectionTable::<V4_WORDS>::new(Arc::clone(&population), HashSeed([1, 2])));
        let mut ahead = Ahead::new(&table);
        assert!(ahead.look());
        assert_eq!(table.records.ready(), LEAST);
        let _ = table.records.take(100_000);
        assert!(ahead.look());
        assert_eq!(table.records.ready(), 10 << 15, "300,000 and up to the next huge page");
        assert!(ahead.look());
        assert_eq!(table.records.ready(), 10 << 15, "nothing was used");
        let _ = table.records.take(1 << 20);
        assert!(ahead.look());
        let all = table.records.ready();
        assert!(all > 1 << 20 && table.records.get(all - 1).is_some() && table.records.get(all).is_none());
        drop(table);
        assert!(!ahead.look());
    }

    #[test]
    fn the_thread_ends_with_the_tables() {
        let population = Arc::new(Population::new(1000));
        let tables = ConnectionTables {
            v4: Arc::new(ConnectionTable::<V4_WORDS>::new(Arc::clone(&population), HashSeed([1, 2]))),
            v6: Arc::new(ConnectionTable::<V6_WORDS>::new(population, HashSeed([1, 2]))),
        };
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        // The sender goes with the thread's closure's first step; a guard says when the thread itself ends.
        thread_local!(static GUARD: std::cell::RefCell<Option<std::sync::mpsc::Sender<()>>> = const { std::cell::RefCell::new(None) });
        keep_memory_ahead(&tables, move || GUARD.set(Some(sender))).unwrap();
        assert_eq!(receiver.recv_timeout(PAUSE * 3), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        drop(tables);
        let ended = receiver.recv_timeout(Duration::from_secs(10));
        assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}

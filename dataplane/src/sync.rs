//! The atomics and locks that the connection table is made of: std's. With the feature `loom` they are loom's, which runs a
//! test through every order that threads and memory may take (`connection/race.rs`); nothing else works in such a build.

#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{Mutex, atomic};

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{Mutex, atomic};

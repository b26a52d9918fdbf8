//! The AF_XDP port over veth: frames of the kernel's own stack go in, and come back by it. Needs root.
#![allow(clippy::unwrap_used)]

mod echo;
mod frames;
#[path = "../namespace/mod.rs"]
mod namespace;
mod open;
mod setup;

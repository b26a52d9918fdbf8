//! The control thread's parts, as a library so that tests reach them; `main.rs` is the program.
#![deny(missing_docs)]

pub mod kernel;

//! The kit of tests: laboratories of network namespaces ([`lab`]), the daemon in one of them ([`daemon`]), its
//! configuration ([`config`]), programs with deadlines ([`command`]), exact frames sent ([`frame`], [`raw`]) and seen on
//! a wire ([`capture`]), floods of them ([`flood`], [`live`]), faults planted in a running program ([`fault`]), servers that say who they are
//! ([`named`]) or count what comes ([`numbered`]), requests ([`traffic`], many of them [`wrk`]) and downloads ([`downloads`]) that go on
//! while something changes, keepalived ([`keepalived`]), all of it in a random order for long ([`soak`]), and waiting for a condition
//! rather than for a time ([`wait`]).
//!
//! Whatever the kit starts, it ends when the value is dropped, also in a test that fails. It panics where a test's set-up
//! is wrong, with what was found: a kit that returned errors would only move `unwrap` into the tests.
#![allow(clippy::unwrap_used)]

pub mod capture;
pub mod command;
pub mod config;
pub mod daemon;
pub mod downloads;
pub mod fault;
pub mod flood;
pub mod frame;
pub mod ftp;
pub mod keepalived;
pub mod lab;
pub mod live;
pub mod named;
pub mod numbered;
pub mod raw;
pub mod report;
pub mod soak;
pub mod traffic;
pub mod wait;
pub mod wrk;

pub use capture::{Capture, Captured};
pub use command::{Finished, Running};
pub use config::{Config, Service};
pub use daemon::{Daemon, Failed};
pub use downloads::{Download, Downloads};
pub use fault::{Ring, Stopped, damage};
pub use flood::Flood;
pub use keepalived::Keepalived;
pub use lab::Lab;
pub use named::Named;
pub use numbered::Numbered;
pub use report::Report;
pub use traffic::Traffic;
pub use wait::{until, within};
pub use wrk::Wrk;

//! The generic-netlink protocol of IPVS: what ipvsadm and keepalived speak, over the control socket instead of the
//! kernel's. A library without I/O but for [`client`].
//!
//! ```text
//! bytes ── frame (netlink headers) ── message (command, nests) ── convert ── adm::model ── dispatch ──▶ adm::backend::Kernel
//! ```
//!
//! `wire` reads and writes attributes, [`attributes`] and [`statistics`] are the nests of which a [`message`] is made:
//! one set of types for both directions. `convert` says what they mean. [`dispatch`] answers a client from any
//! [`Kernel`](crate::adm::backend::Kernel), [`client`] is a `Kernel` that asks a daemon. `control` tells clients the family's
//! number; [`listing`] is what IPVS shows in `/proc` only.
//!
//! No bytes make this code panic. A datagram of answers has at most 8000 bytes, unless one message alone has more.

pub mod attributes;
pub mod client;
mod control;
mod convert;
pub mod dispatch;
mod frame;
pub mod listing;
pub mod message;
pub mod statistics;
mod wire;

pub use client::Client;
pub use dispatch::{Access, Peer, Replies, answer, handle, handles, lists, messages, refuse};
pub use message::{Command, Ipvs};
pub use wire::Name;

/// The family's fixed id, above all that the kernel gives out (at most 1023).
pub const IPVS_FAMILY_ID: u16 = 0x4956;
/// The family's name.
pub const IPVS_FAMILY_NAME: &str = "IPVS";
/// The family's version.
pub const IPVS_FAMILY_VERSION: u8 = 1;
/// The version that we tell: IPVS 1.2.1, as the kernel has told since 2.6.
const IPVS_VERSION: u32 = 0x01_02_01;
/// The most bytes of a datagram with a part of a list: below the 8 KiB that clients have room for.
const MAX_ANSWER_BYTES: usize = 8000;

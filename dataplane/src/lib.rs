//! The packet path of xlvs. The modules stand in the order a frame meets them: a [`port`] receives it, [`packet`]
//! parses it, the connection table or a service's scheduler finds its destination, direct routing rewrites it, and the
//! port transmits it. `ARCHITECTURE.md` draws the whole way.
#![deny(missing_docs)]

pub mod answer;
mod checksum;
pub mod clock;
pub mod connection;
pub mod counters;
pub mod destination;
pub mod direct_routing;
pub mod director;
pub mod flow;
pub mod fragment;
mod ip_option;
pub mod overload;
pub mod packet;
pub mod port;
pub mod scheduler;
pub mod service;
pub mod settings;
mod sync;
pub mod synchronization;
pub mod verdict;
pub mod worker;

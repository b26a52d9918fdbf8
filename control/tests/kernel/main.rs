//! The kernel's network state as the control thread sees it, on real interfaces in network namespaces. Needs root,
//! iproute2 and ethtool.
#![allow(clippy::unwrap_used)]

mod lab;
mod links;
mod neighbors;

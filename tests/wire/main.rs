//! Frames and programs on a wire: each file draws the namespaces that its tests build by `scripts/lab.sh`. All of them
//! need root; none is skipped.
#![allow(clippy::unwrap_used)]

mod answers;
mod change_under_load;
mod endings;
mod exact_frames;
mod fragments;
mod kernels_share;
mod local_server;
mod marks;
mod neighbors;
mod persistence;
mod slow_start;
mod throughput;
mod topologies;
mod unknown_flows;

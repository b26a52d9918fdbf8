//! Frames and programs on a wire: each file draws the namespaces that its tests build by `scripts/lab.sh`. All of them
//! need root; none is skipped.
#![allow(clippy::unwrap_used)]

mod answers;
mod change_under_load;
mod exact_frames;
mod kernels_share;
mod neighbors;
mod throughput;
mod topologies;

//! What an operator does, from start to end, with the programs an operator has. Each file draws the namespaces that its
//! tests build by `scripts/lab.sh`. All of them need root; none is skipped.
#![allow(clippy::unwrap_used)]

mod access;
mod crash;
mod demo;
mod doctor;
mod idle;
mod ipvsadm;
mod keepalived;
mod lifecycle;
mod readme;
mod real_server;
mod reload;
mod start_errors;
mod state;

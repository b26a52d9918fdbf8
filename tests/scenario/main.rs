//! What an operator does, from start to end, with the programs an operator has. Each file draws the namespaces that its
//! tests build by `scripts/lab.sh`. All of them need root; none is skipped.
#![allow(clippy::unwrap_used)]

mod access;
mod crash;
mod demo;
mod doctor;
mod faults;
mod flood;
mod health;
mod hostile_clients;
mod idle;
mod ipvsadm;
mod keepalived;
mod keepalived_pair;
mod least_privilege;
mod lifecycle;
mod lvs_cf;
mod outlive;
mod readme;
mod reload;
mod saved;
mod scale;
mod setup_1_piranha;
mod setup_2_router_in_front;
mod setup_3_persistence;
mod setup_4_director_serves;
mod setup_4_weighted_ftp;
mod setup_5_keepalived_turn;
mod setup_6_persistent_marks;
mod setup_7_real_server;
mod soak;
mod start_errors;
mod state;
mod synchronization;
mod takeover;

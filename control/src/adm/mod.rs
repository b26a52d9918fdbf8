//! The command line of ipvsadm 1.31 as a library: what `xlvs adm` does, without saying how it reaches the daemon.
//!
//! ```text
//! argv ── grammar ──▶ Command ── execute ──▶ Kernel (backend) ── rows ──▶ render ──▶ stdout
//! ```
//!
//! [`grammar`] turns words into a [`Command`](grammar::Command) or a [`Refusal`](grammar::Refusal); it asks nobody but
//! [`names`]. [`backend`] is what a command needs of whoever holds the table; [`render`] turns its rows into the texts
//! that scripts parse, to the byte. [`execute`] ties them together and gives the exit code. [`model`] is the vocabulary of all.
//!
//! Everything here is as ipvsadm 1.31 behaves, odd corners too, but for: the help text (our own words); destinations'
//! counters beyond 32 bits (ipvsadm cuts them, we print them whole); `-S` of an `sh` or `mh` service whose only flag is
//! `flag-3` (ipvsadm prints a `-b` without flags that it can't restore; we print none); `-b` of commas alone (ipvsadm
//! crashes; we take it for none); `-L --timeout` and `-L --daemon` that fail (ipvsadm says nothing; we say why); and the
//! bounds of [`restore`]. `-R` takes marks that `-S` wrote as negative numbers, which ipvsadm refuses. Words that ipvsadm doesn't
//! have are in [`grammar`]'s table; [`render::json`] has the form of `--json`.

pub mod backend;
pub mod execute;
pub mod grammar;
mod help;
pub mod model;
pub mod names;
mod remark;
pub mod render;
pub mod restore;

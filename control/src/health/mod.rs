//! Health checks of real servers.

pub(crate) mod spec;

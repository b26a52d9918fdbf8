//! What the director remembers of flows.

mod cache;
mod table;
mod tcp;
mod wheel;

//! Directors tell each other of their connections, so that one which takes a VIP over goes on with them.

pub mod bulk;
pub mod entry;
pub mod message;

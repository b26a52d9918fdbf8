//! Which service takes a packet.

mod table;

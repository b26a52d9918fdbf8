//! AF_XDP ports.
pub mod ethtool;

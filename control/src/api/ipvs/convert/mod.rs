//! What attributes mean: between the wire's nests and the vocabulary of [`crate::adm::model`]. What the kernel refuses is
//! refused here with its errno, as far as the message alone shows it; the rest is the table's to refuse.

pub(super) mod daemon;
pub(super) mod destination;
pub(super) mod service;

use std::net::IpAddr;

use rustix::io::Errno;

use super::wire::{AF_INET, AF_INET6, v4, v6};
use crate::adm::model::Family;

fn family(number: u16) -> Result<Family, Errno> {
    match number {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn address(bytes: [u8; 16], family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(bytes),
        Family::V6 => v6(bytes),
    }
}

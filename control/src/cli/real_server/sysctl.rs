//! The four ARP sysctls of a real server, in `/proc/sys/net` of the network namespace where we run.
//!
//! A value is ours only as long as it is the one that we set. What somebody else has set since is not restored, and is
//! remembered as the former value by the next `up`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Failure, failed};

/// Name below `net.ipv4.conf`, and value: answer ARP only for addresses of the interface asked on (1), and announce
/// only addresses of the outgoing interface (2).
const WANTED: [(&str, i32); 4] =
    [("all/arp_ignore", 1), ("lo/arp_ignore", 1), ("all/arp_announce", 2), ("lo/arp_announce", 2)];

/// Former values by name.
pub(super) type Former = BTreeMap<String, i32>;

/// Takes down the values to be restored.
pub(super) fn remember(former: &mut Former) -> Result<(), Failure> {
    for (name, wanted) in WANTED {
        let current = read(name)?;
        if current != wanted || !former.contains_key(name) {
            former.insert(name.to_owned(), current);
        }
    }
    Ok(())
}

/// Sets our values.
pub(super) fn set() -> Result<(), Failure> {
    WANTED.into_iter().try_for_each(|(name, wanted)| write(name, wanted))
}

/// Sets the former values where ours still stand.
pub(super) fn restore(former: &Former) -> Result<(), Failure> {
    for (name, wanted) in WANTED {
        if let Some(former) = former.get(name)
            && read(name)? == wanted
        {
            write(name, *former)?;
        }
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv4/conf").join(name)
}

fn read(name: &str) -> Result<i32, Failure> {
    let path = path(name);
    let cannot = |error| failed(&format!("{} can't be read", path.display()), error);
    let text = std::fs::read_to_string(&path).map_err(cannot)?;
    text.trim().parse().map_err(|_| cannot(std::io::ErrorKind::InvalidData.into()))
}

fn write(name: &str, value: i32) -> Result<(), Failure> {
    // An equal value needs no right to write it.
    if read(name)? == value {
        return Ok(());
    }
    let path = path(name);
    std::fs::write(&path, value.to_string())
        .map_err(|error| failed(&format!("{} can't be set to {value}", path.display()), error))
}

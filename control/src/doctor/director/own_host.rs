//! A director that is a real server itself: can it hand this host its packets?

use std::io;

use super::super::finding::{Advice, Check, Finding};
use super::super::host::Host;
use super::super::plan::Plan;
use super::super::proc::{Setting, sysctl_key};
use super::HOST;

const TUN: &str = "/dev/net/tun";

/// Nothing, unless a destination is this host.
pub(super) fn check(plan: &Plan, host: &Host) -> Option<Finding> {
    let _ = plan.servers.iter().find(|server| host.places(**server).next().is_some())?;
    Some(match plan.daemon.as_ref().and_then(|daemon| daemon.host_device.as_deref()) {
        Some(name) => filtered(name, Setting::read(name, "rp_filter")),
        None => possible(&open_tun()),
    })
}

/// Opening it makes no device yet.
fn open_tun() -> io::Result<()> {
    std::fs::File::options().read(true).write(true).open(TUN).map(drop)
}

fn possible(opened: &io::Result<()>) -> Finding {
    match opened {
        Ok(()) => Finding::ok(Check::HostDevice, HOST, format!("{TUN} is there to hand it its own packets")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::failed(Check::HostDevice, HOST, "CAP_NET_ADMIN", error)
        }
        Err(error) => {
            let found =
                format!("is a real server of its own, and can't be given its packets: {TUN}: {error}");
            let advice = Advice::say(
                "load the module tun (modprobe tun); in a container, give it the device /dev/net/tun",
            );
            Finding::broken(Check::HostDevice, HOST, found, advice)
        }
    }
}

/// What comes in by the device has sources that are reached by other interfaces.
fn filtered(name: &str, rp_filter: Option<Setting>) -> Finding {
    match rp_filter.map(Setting::effective) {
        Some(1) => Finding::broken(
            Check::HostDevice,
            name,
            "rp_filter is strict: what clients send to this host's own servers is taken for forged and dropped",
            Advice::run("make it loose", [format!("sysctl -w {}=2", sysctl_key(name, "rp_filter"))]),
        ),
        _ => Finding::ok(Check::HostDevice, name, "hands this host its own packets"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::super::super::finding::State;
    use super::super::super::proc::Setting;
    use super::{filtered, possible};

    #[test]
    fn the_device_has_to_be_there_and_to_be_let_through() {
        assert_eq!(possible(&Ok(())).state, State::Ok);
        assert_eq!(possible(&Err(ErrorKind::NotFound.into())).state, State::Broken);
        // ENODEV: the node is there, and no driver.
        assert_eq!(possible(&Err(Error::from_raw_os_error(19))).state, State::Broken);
        assert_eq!(possible(&Err(ErrorKind::PermissionDenied.into())).state, State::Unknown);
        for (all, own, state) in [
            (0, 0, State::Ok),
            (0, 2, State::Ok),
            (1, 2, State::Ok),
            (1, 0, State::Broken),
            (0, 1, State::Broken),
        ] {
            assert_eq!(filtered("xlvs0", Some(Setting { all, own })).state, state, "{all} {own}");
        }
        let cure = filtered("xlvs0", Some(Setting { all: 0, own: 1 })).to_string();
        assert!(cure.ends_with("sysctl -w net.ipv4.conf.xlvs0.rp_filter=2"), "{cure}");
    }
}

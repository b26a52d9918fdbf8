//! The controller of generic netlink, as far as clients need it: it tells the number of a family.

use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use rustix::io::Errno;

use super::wire::{self, Malformed, Name, Nest, Sink, Value};
use super::{IPVS_FAMILY_ID, IPVS_FAMILY_NAME, IPVS_FAMILY_VERSION, message};
use crate::api;

/// A family, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    id: u16,
    name: &'static str,
    version: u8,
    highest_attribute: u32,
}

const FAMILIES: [Family; 2] = [
    Family {
        id: IPVS_FAMILY_ID,
        name: IPVS_FAMILY_NAME,
        version: IPVS_FAMILY_VERSION,
        highest_attribute: message::HIGHEST_ATTRIBUTE,
    },
    Family {
        id: api::FAMILY_ID,
        name: "XLVS",
        version: api::FAMILY_VERSION,
        highest_attribute: u8::MAX as u32,
    },
];

impl Family {
    fn message(self) -> GenlCtrl {
        GenlCtrl {
            cmd: GenlCtrlCmd::NewFamily,
            nlas: vec![
                GenlCtrlAttrs::FamilyName(self.name.to_owned()),
                GenlCtrlAttrs::FamilyId(self.id),
                GenlCtrlAttrs::Version(self.version.into()),
                GenlCtrlAttrs::HdrSize(0),
                GenlCtrlAttrs::MaxAttr(self.highest_attribute),
            ],
        }
    }
}

/// What a request asks for.
#[derive(Debug, Default)]
struct Wanted {
    id: Option<u16>,
    name: Option<Name<15>>,
}

impl Nest for Wanted {
    fn each(&self, sink: Sink<'_>) {
        if let Some(id) = self.id {
            sink(CTRL_ATTR_FAMILY_ID, Value::U16(id));
        }
        if let Some(name) = &self.name {
            sink(CTRL_ATTR_FAMILY_NAME, Value::Text(name.as_str()));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            CTRL_ATTR_FAMILY_ID => self.id = Some(wire::u16(value)?),
            CTRL_ATTR_FAMILY_NAME => self.name = Some(Name::read(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// The family that a request asks for.
///
/// # Errors
/// `OPNOTSUPP` for another command, `INVAL` without a name or a number, `NOENT` if there is no such family.
pub(super) fn family(command: u8, bytes: &[u8]) -> Result<GenlCtrl, Errno> {
    if command != CTRL_CMD_GETFAMILY {
        return Err(Errno::OPNOTSUPP);
    }
    let wanted: Wanted = wire::read(bytes).map_err(Malformed::errno)?;
    let is_wanted = |family: &Family| match (&wanted.name, wanted.id) {
        (Some(name), _) => name.as_str() == family.name,
        (None, id) => id == Some(family.id),
    };
    match FAMILIES.iter().find(|&family| is_wanted(family)) {
        Some(family) => Ok(family.message()),
        None if wanted.name.is_none() && wanted.id.is_none() => Err(Errno::INVAL),
        None => Err(Errno::NOENT),
    }
}

/// All families.
///
/// # Errors
/// `OPNOTSUPP` for another command.
pub(super) fn families(command: u8) -> Result<impl Iterator<Item = GenlCtrl> + Send + 'static, Errno> {
    if command != CTRL_CMD_GETFAMILY {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(FAMILIES.into_iter().map(Family::message))
}

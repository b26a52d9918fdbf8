//! `[director]` as written.

use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::de::DeTable;
use xlvs_dataplane::overload::SourceRate;
use xlvs_dataplane::port::af_xdp::MAX_RING_SIZE;

use super::table::Table;
use super::value::{Refusal, boolean, connections_file, group, integer, interface, path};
use super::{At, Position, Raw, Source};
use crate::config::MAX_INTERFACES;
use crate::config::names::{
    ConnectionsFile, FrameSize, GroupName, IdlePolicy, InterfaceName, MarkSource, VipMode, WhenFull, XdpMode,
};

/// `[director]`.
#[derive(Debug, Default)]
pub(crate) struct RawDirector {
    /// Its header, if there is one.
    pub(crate) at: Option<Position>,
    pub(crate) interface: Raw<InterfaceName>,
    pub(crate) interfaces: Raw<Vec<At<InterfaceName>>>,
    pub(crate) queues: Raw<NonZeroU32>,
    pub(crate) cores: Raw<Vec<At<usize>>>,
    pub(crate) idle: Raw<IdlePolicy>,
    pub(crate) xdp_mode: Raw<XdpMode>,
    pub(crate) vip: Raw<VipMode>,
    pub(crate) marks: Raw<MarkSource>,
    pub(crate) frame_size: Raw<FrameSize>,
    pub(crate) frames: Raw<u32>,
    pub(crate) ring_size: Raw<u32>,
    pub(crate) huge_pages: Raw<bool>,
    pub(crate) sandbox: Raw<bool>,
    pub(crate) max_connections: Raw<u32>,
    pub(crate) when_full: Raw<WhenFull>,
    pub(crate) new_per_source: Raw<u32>,
    pub(crate) source_prefix_v4: Raw<u8>,
    pub(crate) source_prefix_v6: Raw<u8>,
    pub(crate) socket: Raw<PathBuf>,
    pub(crate) socket_group: Raw<GroupName>,
    pub(crate) socket_read_group: Raw<GroupName>,
    pub(crate) state_dir: Raw<PathBuf>,
    pub(crate) connections_file: Raw<ConnectionsFile>,
}

/// Reads the table.
pub(super) fn director(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawDirector {
    let mut keys = Table::new("director", at, table);
    let raw = RawDirector {
        at: Some(at),
        interface: keys.read(source, "interface", InterfaceName::ALLOWED, interface),
        interfaces: keys.list(source, "interfaces", MAX_INTERFACES, InterfaceName::ALLOWED, interface),
        queues: keys.number(source, "queues", 1..=1024).map(NonZeroU32::new),
        cores: keys
            .list(source, "cores", 1024, "a core's number, 0 to 8191", |value| integer(value, 0..=8191)),
        idle: keys.choice(source, "idle"),
        xdp_mode: keys.choice(source, "xdp_mode"),
        vip: keys.choice(source, "vip"),
        marks: keys.choice(source, "marks"),
        frame_size: keys.read(source, "frame_size", FrameSize::ALLOWED, |value| {
            integer(value, 0..=u32::MAX).and_then(|bytes| FrameSize::of_bytes(bytes).ok_or(Refusal::Value))
        }),
        frames: keys.power_of_two(source, "frames", 512..=1_048_576),
        ring_size: keys.power_of_two(source, "ring_size", 64..=MAX_RING_SIZE),
        huge_pages: keys.read(source, "huge_pages", "true or false", boolean),
        sandbox: keys.read(source, "sandbox", "true or false", boolean),
        max_connections: keys.number(source, "max_connections", 1024..=134_217_728),
        when_full: keys.choice(source, "when_full"),
        new_per_source: keys.number(source, "new_per_source", 1..=SourceRate::MOST),
        source_prefix_v4: keys.number(source, "source_prefix_v4", 0..=32),
        source_prefix_v6: keys.number(source, "source_prefix_v6", 0..=128),
        socket: keys.read(source, "socket", "an absolute path of at most 107 bytes", |value| {
            // sun_path has 108 bytes, the last of which is 0.
            path(value)
                .and_then(|path| if path.as_os_str().len() > 107 { Err(Refusal::Value) } else { Ok(path) })
        }),
        socket_group: keys.read(source, "socket_group", GroupName::ALLOWED, group),
        socket_read_group: keys.read(source, "socket_read_group", GroupName::ALLOWED, group),
        state_dir: keys.read(source, "state_dir", "an absolute path", path),
        connections_file: keys.read(source, "connections_file", ConnectionsFile::ALLOWED, connections_file),
    };
    keys.finish(source);
    raw
}

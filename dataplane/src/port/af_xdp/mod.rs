//! The AF_XDP port: the steering program sends the services' frames to sockets, each worker's port receives and sends
//! them. The files are a ladder, each uses those before it:
//!
//! ```text
//! error ── config ── umem (packet memory) ── socket (four rings of a queue) ── port (a worker's)
//!      └── steering_keys, bpf_link, pin ── steering (an interface's program)
//! ```
//!
//! All of the project's `unsafe` is here, as the kernel shares this memory.

mod bpf_link;
mod config;
mod error;
pub mod ethtool;
mod pin;
mod port;
mod socket;
mod steering;
mod steering_keys;
mod umem;

pub use config::{MAX_INTERFACES, PortConfig, PortInterface};
pub use error::AfXdpError;
pub use port::{AfXdpFrame, AfXdpPort, FrameCensus, MAX_BUFFERS, PortSocket};
pub use steering::{
    Attached, RequestedMode, SteeredInterface, Steering, SteeringCounters, SteeringVerdict, XdpMode,
    detach_interface,
};
pub use steering_keys::{MAX_PORTS, MAX_VIPS};

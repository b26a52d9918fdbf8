//! The AF_XDP port: the steering program sends the services' frames to sockets, each worker's port receives and sends
//! them. The files are a ladder, each uses those before it:
//!
//! ```text
//! error ── config ── frame, umem (packet memory) ── socket (four rings of a queue) ── grip ── port (a worker's)
//!      └── steering_keys ── steering (an interface's program) ── bpf_link, pin ── attach
//! ```
//!
//! All of the project's `unsafe` is here, as the kernel shares this memory.

mod attach;
mod bpf_link;
mod config;
mod error;
pub mod ethtool;
mod frame;
mod grip;
pub mod namespace;
mod pin;
mod port;
mod socket;
mod steering;
mod steering_keys;
mod umem;

pub use attach::{Attached, RequestedMode, XdpMode, detach_interface, pinned_mode};
pub use config::{MAX_INTERFACES, MAX_RING_SIZE, PortConfig, PortInterface};
pub use error::AfXdpError;
pub use frame::{AfXdpFrame, MAX_BUFFERS};
pub use grip::PortGrip;
pub use port::{AfXdpPort, FrameCensus, PortSocket, PreparedPort};
pub use socket::fits_one_frame;
pub use steering::{SteeredInterface, Steering, SteeringCounters, SteeringVerdict};
pub use steering_keys::{MAX_NETWORKS, MAX_PORTS, MAX_VIPS};

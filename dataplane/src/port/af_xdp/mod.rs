//! AF_XDP ports.

mod bpf_link;
mod error;
mod pin;
mod steering;
mod steering_keys;

pub use error::AfXdpError;
pub use steering::{
    Attached, RequestedMode, SteeredInterface, Steering, SteeringCounters, SteeringVerdict, XdpMode,
    detach_interface,
};
pub use steering_keys::{MAX_PORTS, MAX_VIPS};

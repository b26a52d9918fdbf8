//! How the steering program gets onto its interface and off it: a new link, or a predecessor's.
//!
//! Invariant: the program's link is pinned in bpffs as soon as it is attached, so that it outlives this process: after a
//! crash the services' frames are dropped, not answered by the kernel. Only [`Steering::detach`] and [`detach_interface`]
//! take it off, never a drop.

use std::thread;
use std::time::Duration;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{self, XdpLink};
use aya::programs::{ProgramError, Xdp};

use super::error::{AfXdpError, os_error};
use super::pin::PinDirectory;
use super::steering::{PROGRAM, SteeredInterface, Steering, xdp_program};

/// How long [`Steering::attach`] waits for a link that is just being detached.
const ATTACH_TRIES: u32 = 50;
const ATTACH_PAUSE: Duration = Duration::from_millis(20);

/// The XDP mode that the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedMode {
    /// Native if the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's receive path.
    Generic,
}

/// The XDP mode of an attached program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's receive path, for any driver, slower.
    Generic,
}

impl XdpMode {
    /// `native` or `generic`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How the program came to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The mode.
    pub mode: XdpMode,
    /// Whether a predecessor's link was taken over, without a moment in which no program was attached.
    pub adopted: bool,
    /// Why the mode is not native although that was tried first ([`RequestedMode::Auto`]).
    pub fallback: Option<String>,
}

impl Steering {
    /// Attaches the program and pins its link; or, if an xlvs before us has left one, replaces the program of that link.
    /// Blocks for up to a second while an earlier program is just being taken off.
    ///
    /// # Errors
    /// When the interface is gone, another program is attached, or the driver or the kernel refuses.
    pub fn attach(&mut self, requested: RequestedMode) -> Result<Attached, AfXdpError> {
        let pins = PinDirectory::of_interface(self.interface.index)?;
        pins.create()?;
        self.adopt_or_attach(&pins, requested).inspect_err(|_| pins.tidy())
    }

    /// Attaches the program again, with all rules: to the interface that has the name now, if the old one was deleted, whose
    /// sockets have to be registered anew; or on all the queues that it has now, as a driver may have given the program only to
    /// those of before (veth does). Blocks as [`Self::attach`] does. After an error it can be called again.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_again(
        &mut self,
        interface: SteeredInterface,
        requested: RequestedMode,
    ) -> Result<Attached, AfXdpError> {
        self.link = None;
        if interface.index == self.interface.index {
            // The kernel takes no notice of a program that is attached already: it has to be another one.
            let program = xdp_program(&mut self.program)?;
            // Fails where it was done by a call before.
            let _ = program.unload();
            program.load().map_err(|error| AfXdpError::bpf("loading the steering program again", error))?;
        } else {
            // The old interface may be there yet, under another name.
            detach_interface(self.interface.index)?;
        }
        self.set_mac(interface.mac)?;
        self.interface = interface;
        self.attach(requested)
    }

    fn adopt_or_attach(
        &mut self,
        pins: &PinDirectory,
        requested: RequestedMode,
    ) -> Result<Attached, AfXdpError> {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            if let Some(attached) = self.adopt(pins, mode, requested)? {
                return Ok(attached);
            }
        }
        match requested {
            RequestedMode::Native => self.attach_anew(pins, XdpMode::Native, None),
            RequestedMode::Generic => self.attach_anew(pins, XdpMode::Generic, None),
            RequestedMode::Auto => match self.attach_anew(pins, XdpMode::Native, None) {
                Err(error @ AfXdpError::Attach { .. }) => {
                    self.attach_anew(pins, XdpMode::Generic, Some(error.to_string()))
                }
                done => done,
            },
        }
    }

    /// Takes over a pinned link; removes it if it is dead or of a mode that is not wanted.
    fn adopt(
        &mut self,
        pins: &PinDirectory,
        mode: XdpMode,
        requested: RequestedMode,
    ) -> Result<Option<Attached>, AfXdpError> {
        let Some(pinned) = pins.find(mode)? else {
            return Ok(None);
        };
        let wanted = match requested {
            RequestedMode::Auto => true,
            RequestedMode::Native => mode == XdpMode::Native,
            RequestedMode::Generic => mode == XdpMode::Generic,
        };
        if pinned.interface() == self.interface.index && wanted {
            match self.replace_program(pins, mode) {
                Ok(link) => {
                    self.link = Some(link);
                    let fallback = (requested == RequestedMode::Auto && mode == XdpMode::Generic).then(|| {
                        format!(
                            "the xlvs before this one ran {0} in generic mode; `xlvs detach {0}` and a restart try native mode again",
                            self.interface.name
                        )
                    });
                    return Ok(Some(Attached { mode, adopted: true, fallback }));
                }
                // The interface has gone away and its index is in use again, or it goes away just now.
                Err(error) if os_error(&error) == Some(libc::ENOLINK) => {}
                Err(error) => {
                    return Err(AfXdpError::bpf(
                        format!("replacing the steering program of {}", self.interface.name),
                        error,
                    ));
                }
            }
        } else if pinned.interface() == self.interface.index {
            pinned.detach().map_err(|error| {
                let doing = format!("detaching the steering program that was left in {} mode", mode.name());
                AfXdpError::bpf(doing, error)
            })?;
        }
        pins.remove(mode)?;
        Ok(None)
    }

    fn replace_program(&mut self, pins: &PinDirectory, mode: XdpMode) -> Result<FdLink, ProgramError> {
        let pinned = PinnedLink::from_pin(pins.link_path(mode)).map_err(other)?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(other)?;
        let program: &mut Xdp = self
            .program
            .program_mut(PROGRAM)
            .ok_or(ProgramError::NotLoaded)
            .and_then(|program| program.try_into())?;
        let id = program.attach_to_link(link)?;
        FdLink::try_from(program.take_link(id)?).map_err(other)
    }

    fn attach_anew(
        &mut self,
        pins: &PinDirectory,
        mode: XdpMode,
        fallback: Option<String>,
    ) -> Result<Attached, AfXdpError> {
        let index = self.interface.index;
        let flags = match mode {
            XdpMode::Native => xdp::XdpMode::Driver,
            XdpMode::Generic => xdp::XdpMode::Skb,
        };
        let program = xdp_program(&mut self.program)?;
        let mut tries = 1;
        let id = loop {
            let error = match program.attach_to_if_index(index, flags) {
                Ok(id) => break id,
                Err(error) => error,
            };
            // The kernel takes a link that was just given up off a moment later.
            let busy = matches!(os_error(&error), Some(libc::EBUSY | libc::EEXIST));
            if !busy || tries == ATTACH_TRIES {
                return Err(attach_error(&self.interface, mode, error));
            }
            tries += 1;
            thread::sleep(ATTACH_PAUSE);
        };
        // Not a link: the program was attached by netlink, would not outlive us, and could not be replaced in one step.
        let pinned =
            program.take_link(id).map_err(other).and_then(|link| FdLink::try_from(link).map_err(other));
        let link = pinned.map_err(|error| {
            AfXdpError::failed(
                format!(
                    "getting a BPF link for {0} (check `ip link show {0}`; kernel 5.18 is needed)",
                    self.interface.name
                ),
                error,
            )
        })?;
        let path = pins.link_path(mode);
        let pinned = link
            .pin(&path)
            .map_err(|error| AfXdpError::bpf(format!("pinning the link as {}", path.display()), error))?;
        self.link = Some(pinned.into());
        Ok(Attached { mode, adopted: false, fallback })
    }

    /// Takes the program off the interface: a clean exit, after which the kernel answers for the VIPs again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(mut self) -> Result<(), AfXdpError> {
        self.link = None;
        detach_interface(self.interface.index)?;
        Ok(())
    }
}

/// The mode of a steering program that is pinned to an interface of this thread's network namespace: a running director's, or
/// one that was left behind.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn pinned_mode(index: u32) -> Result<Option<XdpMode>, AfXdpError> {
    let pins = PinDirectory::of_interface(index)?;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        if pins.find(mode)?.is_some_and(|link| link.interface() == index) {
            return Ok(Some(mode));
        }
    }
    Ok(None)
}

/// Takes a steering program that was left on an interface of this thread's network namespace off; false if there is none.
///
/// # Errors
/// When the kernel refuses.
pub fn detach_interface(index: u32) -> Result<bool, AfXdpError> {
    let pins = PinDirectory::of_interface(index)?;
    let mut found = false;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let Some(link) = pins.find(mode)? else {
            continue;
        };
        pins.remove(mode)?;
        // A link whose interface is gone has nothing to detach.
        if link.interface() == index {
            link.detach().map_err(|error| AfXdpError::bpf("detaching the steering program", error))?;
            found = true;
        }
    }
    pins.tidy();
    Ok(found)
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

fn attach_error(interface: &SteeredInterface, mode: XdpMode, error: ProgramError) -> AfXdpError {
    let name = &interface.name;
    match os_error(&error) {
        Some(libc::EBUSY | libc::EEXIST) => AfXdpError::ProgramInTheWay { interface: name.clone() },
        Some(libc::ENODEV) => AfXdpError::NoSuchInterface { interface: name.clone() },
        Some(code) if code != libc::EPERM && code != libc::EACCES => AfXdpError::Attach {
            interface: name.clone(),
            mode: mode.name(),
            cause: std::io::Error::from_raw_os_error(code),
            hint: match code {
                libc::ENOSPC => {
                    "; on veth: the other end has more TX queues than this one has RX queues, lower the one or raise \
                     the other by `ethtool -L`"
                }
                libc::EOPNOTSUPP => "; the driver has no native XDP, or not for frames of several buffers",
                libc::ERANGE => "; the MTU is too large for native XDP",
                libc::EINVAL => {
                    "; some drivers refuse it while LRO or hardware GRO is on: `ethtool -K IF lro off`"
                }
                _ => "",
            },
        },
        _ => AfXdpError::bpf(format!("attaching the steering program to {name}"), error),
    }
}

//! What `xlvs adm` says beyond ipvsadm: that a destination was taken, and yet gets no connections.

use super::grammar::{Change, DestinationCommand};
use super::model::Forwarding;

/// What there is to say at the end of a run: one line, however many destinations.
#[derive(Debug, Default)]
pub(super) struct Remark {
    /// The first destination that is kept and never picked.
    first: Option<DestinationCommand>,
    /// How many there are.
    count: usize,
}

impl Remark {
    /// Takes notice of a change that was made.
    pub(super) fn note(&mut self, change: &Change) {
        let (Change::AddDestination(destination) | Change::EditDestination(destination)) = change else {
            return;
        };
        if destination.settings.forwarding != Forwarding::Route {
            self.first.get_or_insert(*destination);
            self.count += 1;
        }
    }

    /// The remark, if there is one to make.
    pub(super) fn text(&self) -> Option<String> {
        let DestinationCommand { address, settings, .. } = self.first?;
        let method = match settings.forwarding {
            Forwarding::Masquerade => "address translation (-m)",
            Forwarding::Local => "the director itself (--local)",
            Forwarding::Tunnel(_) => "a tunnel (-i)",
            Forwarding::Route => "direct routing (-g)",
            Forwarding::Bypass => "a bypass (--bypass)",
        };
        let others = match self.count {
            1 => String::new(),
            count => format!(", and so are {} more like it", count - 1),
        };
        Some(format!(
            "{address} is kept and listed{others}, but gets no connections: it is reached by {method}, and the director forwards \
             by direct routing (-g) only"
        ))
    }
}

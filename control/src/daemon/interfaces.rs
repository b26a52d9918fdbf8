//! The director's interfaces as they come and go: told, and followed. One that is deleted and made again gets the steering program
//! and new sockets; other MTUs, MAC addresses and numbers of queues are taken up as they come.

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::port::af_xdp::Attached;

use super::Daemon;
use crate::kernel::Link;
use crate::launch;
use crate::watchdog::Trouble;

/// What is known of an interface that is gone: nothing of it can be served.
fn forget(link: &mut Link) {
    (link.up, link.rx_queues) = (false, 0);
}

/// Whether an interface is gone.
pub(super) const fn is_missing(link: &Link) -> bool {
    link.rx_queues == 0
}

impl Daemon {
    /// Follows changes of the interfaces.
    pub(super) fn follow_links(&mut self) {
        let (seen, now) = (self.kernel.links(), Now::read());
        for slot in 0..self.launched.links.len() {
            let known = &mut self.launched.links[slot];
            match seen.get(&known.name) {
                None if is_missing(known) => {}
                None => {
                    tracing::warn!("interface {} is gone: its frames are lost until it is back", known.name);
                    forget(known);
                }
                Some(link) => {
                    let is_new = is_missing(known) || link.index != known.index;
                    let before = std::mem::replace(known, link.clone());
                    if is_new {
                        tracing::warn!("interface {} was deleted and is there again", link.name);
                        self.unsteered(slot, "was made again, and has no steering program yet", now);
                    } else if link.rx_queues > before.rx_queues {
                        self.unsteered(slot, "has new queues, without the steering program maybe", now);
                    }
                    self.tell_link(slot, &before, link);
                }
            }
        }
        self.steer_again(now);
        self.find_misplaced_workers(now);
    }

    fn unsteered(&mut self, slot: usize, what: &str, now: Now) {
        let condition = &mut self.launched.conditions[slot];
        condition.begin(Trouble::new(what.to_owned(), now));
        condition.retry = Default::default();
    }

    /// Tells what has changed of an interface that is there, and has the steering program know its address.
    fn tell_link(&mut self, slot: usize, before: &Link, link: &Link) {
        let Link { name, mtu, rx_queues, .. } = link;
        if link.up != before.up {
            if link.up {
                tracing::info!("interface {name} is up");
            } else {
                tracing::warn!("interface {name} is down");
            }
        }
        if *mtu != before.mtu {
            tracing::info!("interface {name} has MTU {mtu}, after {}", before.mtu);
        }
        if *rx_queues != before.rx_queues && !is_missing(before) {
            tracing::info!("interface {name} has {rx_queues} queue(s), after {}", before.rx_queues);
        }
        if link.mac != before.mac
            && let Some(steering) = self.publisher.steerings().get_mut(slot)
            && let Err(error) = steering.set_mac(link.mac)
        {
            tracing::error!("{error}");
        }
    }

    /// Attaches the steering program to interfaces that were made again, or have new queues, where a try is due. Until it is there the
    /// host itself gets the frames, and would reset connections.
    pub(super) fn steer_again(&mut self, now: Now) {
        let requested = self.configuration.director.xdp_mode;
        let facts = &mut self.launched;
        let all = facts.conditions.iter_mut().zip(&facts.links).zip(&mut facts.modes);
        for (steering, ((condition, link), mode)) in self.publisher.steerings().iter_mut().zip(all) {
            if condition.trouble.is_none() || is_missing(link) || !condition.retry.is_due(now) {
                continue;
            }
            condition.retry.begin(now);
            let name = &link.name;
            match steering.attach_again(launch::steered(link), requested) {
                Ok(Attached { mode: attached, fallback, .. }) => {
                    let before = std::mem::replace(mode, attached);
                    condition.end(now);
                    tracing::info!("{name}: the steering program is attached again, XDP {}", attached.name());
                    if let Some(why) = fallback.filter(|_| attached != before) {
                        tracing::warn!("{name}: XDP runs in generic mode ({why})");
                    }
                }
                Err(error) => {
                    if condition.fail(error.to_string()) {
                        tracing::error!("{error}; it is tried again, less and less often");
                    }
                }
            }
        }
    }
}

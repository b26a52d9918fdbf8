//! What the steering program would do: whether a frame is the director's at all, or left to the host.

use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::service::mark::Unmarked;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::verdict::DropReason;

/// Whether no service's rule claims the frame.
pub fn passes(services: &ServiceTable, frame: &[u8]) -> bool {
    match Packet::parse(frame, frame.len()) {
        Ok(packet) => {
            let address = std::net::SocketAddr::new(packet.vip, packet.virtual_port);
            let mark = services.marks.mark(&Unmarked {
                protocol: packet.protocol(),
                client: packet.client().0,
                destination: packet.vip,
                port: packet.virtual_port,
                interface: InterfaceSlot(0),
            });
            services.find(packet.protocol(), address, mark).is_none()
        }
        Err(reason) => matches!(reason, DropReason::OtherProtocol | DropReason::Icmp),
    }
}

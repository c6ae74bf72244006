//! Whether a socket listens at exactly an address, and not at all addresses of the machine.
//!
//! Addresses of Services (in loopback mode) and of guests are the machine's own: whoever on the machine listens on
//! 0.0.0.0 would answer there too. The kernel is asked which socket it would choose. Source: `linux/inet_diag.h`,
//! sock_diag(7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// The transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// `SOCK_DIAG_BY_FAMILY`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;
/// `INET_DIAG_NOCOOKIE`, twice.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Whether the socket that the kernel would choose for `address` is bound to that very address.
///
/// # Errors
/// The kernel cannot be asked.
pub(super) fn listens_exactly(transport: Transport, address: SocketAddr) -> io::Result<bool> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    match transport {
        Transport::Tcp => ask(&netlink, transport, address, Order::LocalFirst),
        // "src and dst are swapped for historical reasons", and the history differs between kernels.
        Transport::Udp => Ok(ask(&netlink, transport, address, Order::RemoteFirst)?
            || ask(&netlink, transport, address, Order::LocalFirst)?),
    }
}

/// Which half of the question is our address.
#[derive(Clone, Copy)]
enum Order {
    LocalFirst,
    RemoteFirst,
}

fn ask(netlink: &OwnedFd, transport: Transport, address: SocketAddr, order: Order) -> io::Result<bool> {
    let request = question(transport, address, order);
    sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(answer.get(..length).and_then(bound_address) == Some(address))
}

fn question(transport: Transport, address: SocketAddr, order: Order) -> Vec<u8> {
    let (family, protocol) = (
        if address.is_ipv4() { libc_family::INET } else { libc_family::INET6 },
        match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        },
    );
    let length = u32::try_from(HEADER_BYTES + REQUEST_BYTES).unwrap_or_default();
    let mut message = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    message.extend(length.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // Family, protocol, extensions, padding; all states.
    message.extend([family, protocol, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    let port = address.port().to_be_bytes();
    let (ip, any) = (octets(address.ip()), [0; 16]);
    match order {
        Order::LocalFirst => {
            message.extend(port);
            message.extend([0; 2]);
            message.extend(ip);
            message.extend(any);
        }
        Order::RemoteFirst => {
            message.extend([0; 2]);
            message.extend(port);
            message.extend(any);
            message.extend(ip);
        }
    }
    // No interface.
    message.extend([0; 4]);
    message.extend(NO_COOKIE);
    message
}

/// Where the socket of an answer is bound; `None` for an error, which is "there is none".
fn bound_address(answer: &[u8]) -> Option<SocketAddr> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    // `struct inet_diag_msg`: family, state, timer, retransmissions, then the socket's id.
    let message = answer.get(HEADER_BYTES..)?;
    let port = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let ip = match *message.first()? {
        libc_family::INET => IpAddr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?),
        libc_family::INET6 => IpAddr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn octets(ip: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match ip {
        IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => octets = ip.octets(),
    }
    octets
}

/// `AF_INET` and `AF_INET6` as they stand in messages.
mod libc_family {
    pub(super) const INET: u8 = 2;
    pub(super) const INET6: u8 = 10;
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    #[test]
    fn only_a_socket_at_the_very_address_counts() {
        let tcp = |ip: &str, port| listens_exactly(Transport::Tcp, at(ip, port)).unwrap();
        let listener = TcpListener::bind("127.0.2.1:0").unwrap();
        let wildcard = TcpListener::bind("0.0.0.0:0").unwrap();
        let (port, wild) = (listener.local_addr().unwrap().port(), wildcard.local_addr().unwrap().port());
        assert!(tcp("127.0.2.1", port));
        assert!(!tcp("127.0.2.2", port));
        assert!(!tcp("127.0.2.1", wild));
        assert!(!listens_exactly(Transport::Udp, at("127.0.2.1", port)).unwrap());
    }

    #[test]
    fn datagram_sockets_are_found_as_well() {
        let socket = UdpSocket::bind("127.0.2.3:0").unwrap();
        let wildcard = UdpSocket::bind("0.0.0.0:0").unwrap();
        let (port, wild) = (socket.local_addr().unwrap().port(), wildcard.local_addr().unwrap().port());
        let udp = |ip: &str, port| listens_exactly(Transport::Udp, at(ip, port)).unwrap();
        assert!(udp("127.0.2.3", port));
        assert!(!udp("127.0.2.4", port));
        assert!(!udp("127.0.2.3", wild));
    }
}

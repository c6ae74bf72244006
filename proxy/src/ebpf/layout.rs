//! The bytes that the programs in `bpf/sockets.bpf.c` and this crate exchange through maps.
//!
//! Numbers are in the machine's byte order, addresses and ports in the network's. IPv4 is written as `::ffff:a.b.c.d`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::rules::Protocol;

/// The version of these layouts. Maps of another version are not read: they are made anew, and the old ones removed.
pub(super) const LAYOUT: u32 = 1;

/// The bytes of an [`Address`]: `struct address`.
pub(super) type AddressBytes = [u8; 20];
/// The bytes of a [`Record`]: `struct frontend`.
pub(super) type RecordBytes = [u8; 16];
/// The bytes of a [`Slot`]: `struct slot`.
pub(super) type SlotBytes = [u8; 12];
/// The bytes of a [`Member`]: `struct member`.
pub(super) type MemberBytes = [u8; 24];

/// An address of a Service or an endpoint, with the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    pub(super) socket: SocketAddr,
}

/// What is known of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Whose slots.
    pub(super) id: u32,
    /// Which of them.
    pub(super) generation: u32,
    /// How many. None: connections are refused.
    pub(super) endpoints: u32,
    /// How long a client stays with its endpoint after its last connection; 0 means not at all.
    pub(super) affinity_seconds: u32,
}

/// A place of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub(super) id: u32,
    pub(super) generation: u32,
    pub(super) index: u32,
}

/// That an endpoint is one of `id`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) endpoint: Address,
}

impl Address {
    pub(super) fn to_bytes(self) -> AddressBytes {
        let ip = match self.socket.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..18].copy_from_slice(&self.socket.port().to_be_bytes());
        bytes[18..].copy_from_slice(&u16::from(self.protocol.number()).to_ne_bytes());
        bytes
    }

    /// `None` where no address of ours could have been written.
    pub(super) fn from_bytes(bytes: AddressBytes) -> Option<Self> {
        let [ip @ .., port_high, port_low, protocol_first, protocol_second] = bytes;
        let protocol = u16::from_ne_bytes([protocol_first, protocol_second]);
        let protocol = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|candidate| u16::from(candidate.number()) == protocol)?;
        let ip = Ipv6Addr::from(ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), |ip: Ipv4Addr| IpAddr::V4(ip));
        Some(Self { protocol, socket: SocketAddr::new(ip, u16::from_be_bytes([port_high, port_low])) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.socket)
    }
}

impl Record {
    pub(super) fn to_bytes(self) -> RecordBytes {
        join([self.id, self.generation, self.endpoints, self.affinity_seconds])
    }

    pub(super) fn from_bytes(bytes: RecordBytes) -> Self {
        let [id, generation, endpoints, affinity_seconds] = split(bytes);
        Self { id, generation, endpoints, affinity_seconds }
    }
}

impl Slot {
    pub(super) fn to_bytes(self) -> SlotBytes {
        join([self.id, self.generation, self.index])
    }

    pub(super) fn from_bytes(bytes: SlotBytes) -> Self {
        let [id, generation, index] = split(bytes);
        Self { id, generation, index }
    }
}

impl Member {
    pub(super) fn to_bytes(self) -> MemberBytes {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&self.id.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.endpoint.to_bytes());
        bytes
    }

    /// `None` where no member of ours could have been written.
    pub(super) fn from_bytes(bytes: MemberBytes) -> Option<Self> {
        let [first, second, third, fourth, endpoint @ ..] = bytes;
        let id = u32::from_ne_bytes([first, second, third, fourth]);
        Some(Self { id, endpoint: Address::from_bytes(endpoint)? })
    }
}

fn join<const NUMBERS: usize, const BYTES: usize>(numbers: [u32; NUMBERS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn split<const NUMBERS: usize, const BYTES: usize>(bytes: [u8; BYTES]) -> [u32; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    for (number, place) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
        let mut four = [0; 4];
        four.copy_from_slice(place);
        *number = u32::from_ne_bytes(four);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (protocol, socket) in [
            (Protocol::Tcp, "10.96.0.1:443"),
            (Protocol::Udp, "[fd00::9]:53"),
            (Protocol::Udp, "0.0.0.0:65535"),
        ] {
            let address = Address { protocol, socket: socket.parse().unwrap() };
            assert_eq!(Address::from_bytes(address.to_bytes()), Some(address));
            let member = Member { id: 0x0102_0304, endpoint: address };
            assert_eq!(Member::from_bytes(member.to_bytes()), Some(member));
        }
        let record = Record { id: 1, generation: u32::MAX, endpoints: 3, affinity_seconds: 10_800 };
        assert_eq!(Record::from_bytes(record.to_bytes()), record);
        let slot = Slot { id: 7, generation: 8, index: 9 };
        assert_eq!(Slot::from_bytes(slot.to_bytes()), slot);
    }

    #[test]
    fn an_ipv4_address_is_written_as_an_ipv6_socket_would_ask_for_it() {
        let address = Address { protocol: Protocol::Tcp, socket: "10.96.0.1:443".parse().unwrap() };
        let bytes = address.to_bytes();
        assert_eq!(bytes[..18], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1, 1, 187]);
        assert_eq!(bytes[18..], 6_u16.to_ne_bytes());
    }
}

//! The node's range of pod addresses, in halves.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Error;

/// The longest prefix of a node's range: a half must have addresses beside those of network, gateway and broadcast.
const MAX_PREFIX_LEN: u8 = 27;

/// A node's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRange {
    /// All of it.
    pub all: Ipv4Net,
    /// The containers' half: the first.
    pub containers: Ipv4Net,
    /// The Wasm pods' half: the second.
    pub guests: Ipv4Net,
}

impl NodeRange {
    /// The halves of `all`.
    ///
    /// # Errors
    /// It is too small, or no IPv4 range.
    pub fn parse(cidr: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Range { cidr: cidr.to_owned(), reason };
        let all: Ipv4Net = cidr.parse().map_err(|_| wrong("it is no IPv4 range"))?;
        if all.prefix_len() > MAX_PREFIX_LEN {
            return Err(wrong("its prefix has more than 27 bits"));
        }
        let mut halves = all.subnets(all.prefix_len() + 1).map_err(|_| wrong("it cannot be divided"))?;
        match (halves.next(), halves.next()) {
            (Some(containers), Some(guests)) => Ok(Self { all: all.trunc(), containers, guests }),
            _ => Err(wrong("it cannot be divided")),
        }
    }

    /// The first IPv4 range among those of a Node.
    ///
    /// # Errors
    /// As for [`NodeRange::parse`].
    pub fn of_node(cidrs: &[String]) -> Result<Option<Self>, Error> {
        cidrs.iter().find(|cidr| !cidr.contains(':')).map(|cidr| Self::parse(cidr)).transpose()
    }

    /// The end of the node's tunnel: the first address, which no pod gets.
    pub fn tunnel_address(&self) -> Ipv4Addr {
        self.all.network()
    }

    /// The hardware address of the tunnel's end: every node can tell it from the range, so that it need not be told.
    pub fn tunnel_mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.tunnel_address().octets();
        // Locally administered, unicast.
        [0x0a, 0x58, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_the_first_half_and_guests_the_second() {
        let range = NodeRange::parse("10.42.3.0/24").unwrap();
        assert_eq!(range.containers.to_string(), "10.42.3.0/25");
        assert_eq!(range.guests.to_string(), "10.42.3.128/25");
        assert_eq!(range.tunnel_address().to_string(), "10.42.3.0");
        assert_eq!(range.tunnel_mac(), [0x0a, 0x58, 10, 42, 3, 0]);
        assert_eq!(NodeRange::parse("10.42.3.7/27").unwrap().guests.to_string(), "10.42.3.16/28");
    }

    #[test]
    fn the_ipv4_range_of_a_node_is_taken_and_what_is_too_small_is_refused() {
        let of = |cidrs: &[&str]| {
            NodeRange::of_node(&cidrs.iter().map(|&cidr| cidr.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["fd00::/64"]).unwrap(), None);
        assert_eq!(of(&["fd00::/64", "10.1.0.0/24"]).unwrap().unwrap().all.to_string(), "10.1.0.0/24");
        for wrong in ["10.1.0.0/28", "10.1.0.0", "x"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}

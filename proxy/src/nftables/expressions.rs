//! The expressions of a rule: what is loaded into registers, compared, looked up and done.
//!
//! Source: linux/netfilter/nf_tables.h. Registers are the sixteen of four bytes, `NFT_REG32_00` to `NFT_REG32_15`; an IPv6
//! address takes four.

use ipnet::IpNet;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};

use super::batch::{Verdict, push_be32, push_data, push_raw, push_text, push_verdict};
use crate::rules::{Family, Protocol};

/// A register of four bytes, by its place: 0 to 15.
pub(super) type Register = u32;

const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const JUMP: i32 = -3;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const DESTINATION_PORT_OFFSET: u32 = 2;

/// `enum nft_meta_keys`.
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;

/// `enum nft_ct_keys`.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 32;

/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 16;

/// How long an address of the family is.
pub(super) fn address_bytes(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// How many registers an address takes.
pub(super) fn address_registers(family: Family) -> Register {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

/// A set that a rule looks into.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetRef<'a> {
    pub(super) name: &'a str,
    /// For a set of the same batch.
    pub(super) id: Option<u32>,
}

impl<'a> SetRef<'a> {
    pub(super) fn named(name: &'a str) -> Self {
        Self { name, id: None }
    }
}

/// The expressions of one rule, in order: the first that does not match ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expressions {
    bytes: Vec<u8>,
}

impl Expressions {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let element = push_nested_header(&mut self.bytes, 1);
        push_text(&mut self.bytes, 1, name);
        let data = push_nested_header(&mut self.bytes, 2);
        write(&mut self.bytes);
        finalize_nested_header(&mut self.bytes, data);
        finalize_nested_header(&mut self.bytes, element);
        self
    }

    fn load_payload(self, base: u32, offset: u32, bytes: usize, to: Register) -> Self {
        self.push("payload", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER + to);
            push_be32(buffer, 2, base);
            push_be32(buffer, 3, offset);
            push_be32(buffer, 4, u32::try_from(bytes).unwrap_or(u32::MAX));
        })
    }

    /// Load an address of the packet.
    pub(super) fn load_address(self, family: Family, end: End, to: Register) -> Self {
        let offset = match (family, end) {
            (Family::V4, End::Source) => 12,
            (Family::V4, End::Destination) => 16,
            (Family::V6, End::Source) => 8,
            (Family::V6, End::Destination) => 24,
        };
        self.load_payload(NETWORK_HEADER, offset, address_bytes(family), to)
    }

    /// Load the transport's number, then the destination port into the next register.
    pub(super) fn load_protocol_and_port(self, to: Register) -> Self {
        self.load_meta(META_L4PROTO, to).load_payload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2, to + 1)
    }

    fn load_meta(self, key: u32, to: Register) -> Self {
        self.push("meta", |buffer| {
            push_be32(buffer, 2, key);
            push_be32(buffer, 1, FIRST_REGISTER + to);
        })
    }

    fn load_conntrack(self, key: u32, to: Register) -> Self {
        self.push("ct", |buffer| {
            push_be32(buffer, 2, key);
            push_be32(buffer, 1, FIRST_REGISTER + to);
        })
    }

    fn compare(self, register: Register, comparison: Comparison, data: &[u8]) -> Self {
        self.push("cmp", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER + register);
            push_be32(buffer, 2, comparison as u32);
            push_data(buffer, 3, data);
        })
    }

    /// `register = (register & mask) ^ xor`.
    fn mask(self, register: Register, mask: &[u8], xor: &[u8]) -> Self {
        self.push("bitwise", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER + register);
            push_be32(buffer, 2, FIRST_REGISTER + register);
            push_be32(buffer, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            push_data(buffer, 4, mask);
            push_data(buffer, 5, xor);
        })
    }

    /// Only new connections.
    pub(super) fn is_new(self) -> Self {
        self.load_conntrack(CT_STATE, 0).mask(0, &STATE_NEW.to_ne_bytes(), &[0; 4]).compare(
            0,
            Comparison::NotEqual,
            &[0; 4],
        )
    }

    /// Only connections whose destination was translated.
    pub(super) fn is_translated(self) -> Self {
        self.load_conntrack(CT_STATUS, 0).mask(0, &STATUS_DNAT.to_ne_bytes(), &[0; 4]).compare(
            0,
            Comparison::NotEqual,
            &[0; 4],
        )
    }

    /// Whether an address is in a range.
    pub(super) fn address(self, end: End, comparison: Comparison, range: IpNet) -> Self {
        let (network, mask) = match range {
            IpNet::V4(range) => (range.network().octets().to_vec(), range.netmask().octets().to_vec()),
            IpNet::V6(range) => (range.network().octets().to_vec(), range.netmask().octets().to_vec()),
        };
        let xor = vec![0; mask.len()];
        self.load_address(Family::of(range.addr()), end, 0)
            .mask(0, &mask, &xor)
            .compare(0, comparison, &network)
    }

    /// Whether an address is one of this machine's.
    pub(super) fn is_local(self, end: End, comparison: Comparison) -> Self {
        let flags = match end {
            End::Source => 1,
            End::Destination => 2,
        };
        self.push("fib", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER);
            push_be32(buffer, 2, 3);
            push_be32(buffer, 3, flags);
        })
        .compare(0, comparison, &LOCAL.to_ne_bytes())
    }

    /// Whether the packet's mark has these bits.
    pub(super) fn has_mark(self, bits: u32) -> Self {
        self.load_meta(META_MARK, 0).mask(0, &bits.to_ne_bytes(), &[0; 4]).compare(
            0,
            Comparison::NotEqual,
            &[0; 4],
        )
    }

    /// Set these bits of the mark.
    pub(super) fn set_mark(self, bits: u32) -> Self {
        self.load_meta(META_MARK, 0).mask(0, &(!bits).to_ne_bytes(), &bits.to_ne_bytes()).store_mark()
    }

    /// Clear these bits of the mark.
    pub(super) fn clear_mark(self, bits: u32) -> Self {
        self.load_meta(META_MARK, 0).mask(0, &(!bits).to_ne_bytes(), &[0; 4]).store_mark()
    }

    fn store_mark(self) -> Self {
        self.push("meta", |buffer| {
            push_be32(buffer, 2, META_MARK);
            push_be32(buffer, 3, FIRST_REGISTER);
        })
    }

    /// Whether the key at `from` is in the set.
    pub(super) fn is_in(self, from: Register, set: SetRef<'_>) -> Self {
        self.look_up(from, None, set)
    }

    /// The verdict that the map has for the key at `from`.
    pub(super) fn verdict_of(self, from: Register, map: SetRef<'_>) -> Self {
        self.look_up(from, Some(VERDICT_REGISTER), map)
    }

    /// Load what the map has for the key at `from`.
    pub(super) fn load_value(self, from: Register, to: Register, map: SetRef<'_>) -> Self {
        self.look_up(from, Some(FIRST_REGISTER + to), map)
    }

    fn look_up(self, from: Register, to: Option<u32>, set: SetRef<'_>) -> Self {
        self.push("lookup", |buffer| {
            push_text(buffer, 1, set.name);
            push_be32(buffer, 2, FIRST_REGISTER + from);
            if let Some(to) = to {
                push_be32(buffer, 3, to);
            }
            if let Some(id) = set.id {
                push_be32(buffer, 4, id);
            }
        })
    }

    /// Put the key at `key` into the set, or note that it was seen again.
    pub(super) fn remember(self, key: Register, set: SetRef<'_>) -> Self {
        self.push("dynset", |buffer| {
            push_text(buffer, 1, set.name);
            push_be32(buffer, 3, 1);
            push_be32(buffer, 4, FIRST_REGISTER + key);
        })
    }

    /// Load a value.
    pub(super) fn load(self, value: &[u8], to: Register) -> Self {
        self.push("immediate", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER + to);
            push_data(buffer, 2, value);
        })
    }

    /// Load a random number below `below`.
    pub(super) fn load_random(self, below: u32, to: Register) -> Self {
        self.push("numgen", |buffer| {
            push_be32(buffer, 1, FIRST_REGISTER + to);
            push_be32(buffer, 2, below);
            push_be32(buffer, 3, 1);
        })
    }

    /// Once in `parts` times, at random.
    pub(super) fn is_chosen(self, parts: u32) -> Self {
        if parts == 1 { self } else { self.load_random(parts, 0).compare(0, Comparison::Equal, &[0; 4]) }
    }

    /// Send the connection to the address at `address` and the port behind it.
    pub(super) fn translate(self, family: Family, address: Register) -> Self {
        let (ip, port) = (FIRST_REGISTER + address, FIRST_REGISTER + address + address_registers(family));
        self.push("nat", |buffer| {
            push_be32(buffer, 1, 1);
            push_be32(buffer, 2, u32::from(super::batch::family_number(family)));
            push_be32(buffer, 3, ip);
            push_be32(buffer, 4, ip);
            push_be32(buffer, 5, port);
            push_be32(buffer, 6, port);
        })
    }

    /// Let the connection come from this machine.
    pub(super) fn masquerade(self) -> Self {
        self.push("masq", |buffer| push_be32(buffer, 1, RANDOM_FULLY))
    }

    /// Only TCP.
    pub(super) fn is_tcp(self) -> Self {
        self.load_meta(META_L4PROTO, 0).compare(0, Comparison::Equal, &[Protocol::Tcp.number()])
    }

    /// Answer that nobody listens. TCP only.
    pub(super) fn reset(self) -> Self {
        self.push("reject", |buffer| {
            push_be32(buffer, 1, 1);
            push_raw(buffer, 2, &[0]);
        })
    }

    /// Answer that the port is not reachable.
    pub(super) fn reject(self, family: Family) -> Self {
        let code = match family {
            Family::V4 => 3,
            Family::V6 => 4,
        };
        self.push("reject", |buffer| {
            push_be32(buffer, 1, 0);
            push_raw(buffer, 2, &[code]);
        })
    }

    /// End with a verdict.
    pub(super) fn end_with(self, verdict: &Verdict) -> Self {
        self.push("immediate", |buffer| {
            push_be32(buffer, 1, VERDICT_REGISTER);
            push_verdict(buffer, 2, verdict);
        })
    }

    /// Go on in the calling chain.
    pub(super) fn return_(self) -> Self {
        self.code(-5, None)
    }

    /// Go through a chain, and come back.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.code(JUMP, Some(chain))
    }

    fn code(self, code: i32, chain: Option<&str>) -> Self {
        self.push("immediate", |buffer| {
            push_be32(buffer, 1, VERDICT_REGISTER);
            let data = push_nested_header(buffer, 2);
            let verdict = push_nested_header(buffer, 2);
            push_be32(buffer, 1, code.cast_unsigned());
            if let Some(chain) = chain {
                push_text(buffer, 2, chain);
            }
            finalize_nested_header(buffer, verdict);
            finalize_nested_header(buffer, data);
        })
    }
}

//! The rules of a Service's chains.

use std::{net::SocketAddr, time::Duration};

use super::{
    batch::{Batch, Element, Set, Value, Verdict, set_flags},
    expressions::{Comparison, End, Expressions, SetRef, address_bytes},
    layout::{address_type, endpoint_type},
    plan::{Chain, endpoint_value},
};
use crate::{
    network::{MASQUERADE_MARK, Network},
    rules::Family,
};

/// Clients that an endpoint remembers at the most; further ones are balanced without memory.
const MAX_CLIENTS: u32 = 65_536;

/// Up to how many endpoints have a rule each; more have a map. The kernel looks through all sets of the table to name a new one:
/// with a map for every Service, ten thousand take twelve seconds.
const MAX_RULES: usize = 16;

/// `integer`, as `nft` names types.
const INTEGER_TYPE: u32 = 4;

/// Where an endpoint is loaded to: address, then port.
const ENDPOINT: u32 = 4;
/// Where the client's address, or the random number, is loaded to.
const CLIENT: u32 = 0;

impl Chain {
    /// How many rules [`fill`] gives it.
    pub(super) fn rules(&self, network: &Network, family: Family) -> usize {
        match self {
            Self::Balance { endpoints } if endpoints.len() <= MAX_RULES => endpoints.len(),
            Self::Balance { .. } | Self::FromOutside { .. } => 1,
            Self::BalanceWithAffinity { endpoints, .. } => 2 * endpoints.len(),
            Self::Endpoint { .. } => 2,
            Self::FromOutsideLocal { .. } => 2 + network.cidrs_of(family).count(),
            Self::Firewall { ranges } => ranges.len() + 1,
        }
    }

    /// Whether it has a set of clients, of its own name.
    pub(super) fn has_clients(&self) -> bool {
        matches!(self, Self::Endpoint { .. })
    }
}

/// Add the set that a chain has, if it has one.
pub(super) fn add_clients(batch: &mut Batch, family: Family, name: &str, chain: &Chain) {
    let Chain::Endpoint { timeout, .. } = chain else { return };
    let set = Set {
        name,
        flags: set_flags::TIMEOUT | set_flags::EVAL,
        key_type: address_type(family),
        key_bytes: address_bytes(family),
        data: None,
        timeout_ms: Some(milliseconds(*timeout)),
        size: Some(MAX_CLIENTS),
    };
    batch.add_set(family, &set);
}

fn milliseconds(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// Add the rules of a chain that is empty; the chains that it leads to, and the sets of clients, are there.
pub(super) fn fill(batch: &mut Batch, family: Family, name: &str, chain: &Chain, network: &Network) {
    let rule = Expressions::new;
    match chain {
        Chain::Balance { endpoints } if endpoints.len() <= MAX_RULES => {
            for (index, endpoint) in endpoints.iter().enumerate() {
                let chosen = rule().is_chosen(count(endpoints.len() - index));
                batch.add_rule(family, name, &translate_to(chosen, family, *endpoint));
            }
        }
        Chain::Balance { endpoints } => {
            let values = endpoints.iter().map(|endpoint| Value::Data(endpoint_value(*endpoint)));
            let map = add_numbered(batch, family, endpoint_type(family), values);
            let choose = rule().load_random(count(endpoints.len()), CLIENT).load_value(CLIENT, ENDPOINT, map);
            batch.add_rule(family, name, &choose.translate(family, ENDPOINT));
        }
        Chain::BalanceWithAffinity { endpoints, .. } => {
            for endpoint in endpoints {
                let again =
                    rule().load_address(family, End::Source, CLIENT).is_in(CLIENT, SetRef::named(endpoint));
                batch.add_rule(family, name, &again.end_with(&Verdict::goto(endpoint)));
            }
            for (index, endpoint) in endpoints.iter().enumerate() {
                let chosen = rule().is_chosen(count(endpoints.len() - index));
                batch.add_rule(family, name, &chosen.end_with(&Verdict::goto(endpoint)));
            }
        }
        Chain::Endpoint { endpoint, .. } => {
            // A rule of its own: where there is no room, the connection goes to the endpoint all the same.
            let remember =
                rule().load_address(family, End::Source, CLIENT).remember(CLIENT, SetRef::named(name));
            batch.add_rule(family, name, &remember);
            batch.add_rule(family, name, &translate_to(rule(), family, *endpoint));
        }
        Chain::FromOutside { to } => {
            let go = rule().set_mark(MASQUERADE_MARK).end_with(&Verdict::goto(to));
            batch.add_rule(family, name, &go);
        }
        Chain::FromOutsideLocal { everywhere, here } => {
            let everywhere = Verdict::goto(everywhere);
            for cidr in network.cidrs_of(family) {
                let from_pods = rule().address(End::Source, Comparison::Equal, cidr);
                batch.add_rule(family, name, &from_pods.end_with(&everywhere));
            }
            let from_node = rule().is_local(End::Source, Comparison::Equal).set_mark(MASQUERADE_MARK);
            batch.add_rule(family, name, &from_node.end_with(&everywhere));
            batch.add_rule(family, name, &rule().end_with(here));
        }
        Chain::Firewall { ranges } => {
            for range in ranges {
                let allowed = rule().address(End::Source, Comparison::Equal, *range);
                batch.add_rule(family, name, &allowed.return_());
            }
            batch.add_rule(family, name, &rule().end_with(&Verdict::Drop));
        }
    }
}

fn count(endpoints: usize) -> u32 {
    u32::try_from(endpoints).unwrap_or(u32::MAX).max(1)
}

fn translate_to(expressions: Expressions, family: Family, endpoint: SocketAddr) -> Expressions {
    let value = endpoint_value(endpoint);
    let (address, port) = value.split_at(address_bytes(family));
    let port_register = ENDPOINT + super::expressions::address_registers(family);
    let port = port.get(..2).unwrap_or_default();
    expressions.load(address, ENDPOINT).load(port, port_register).translate(family, ENDPOINT)
}

/// A map from 0, 1, 2, … that belongs to the rule that is added next.
fn add_numbered<'a>(
    batch: &mut Batch,
    family: Family,
    data: (u32, usize),
    values: impl ExactSizeIterator<Item = Value>,
) -> SetRef<'a> {
    let set = Set {
        name: "__map%d",
        flags: set_flags::ANONYMOUS | set_flags::CONSTANT | set_flags::MAP,
        key_type: INTEGER_TYPE,
        key_bytes: 4,
        data: Some(data),
        timeout_ms: None,
        size: Some(count(values.len())),
    };
    let id = batch.add_set(family, &set);
    let numbered: Vec<([u8; 4], Value)> = (0_u32..).map(u32::to_ne_bytes).zip(values).collect();
    let elements: Vec<Element<'_>> = numbered.iter().map(|(key, value)| Element { key, value }).collect();
    batch.add_elements(family, set.name, Some(id), &elements);
    SetRef { name: set.name, id: Some(id) }
}

//! What the table holds before there is any Service: sets, maps, and the chains that look into them.
//!
//! A packet looks its Service up in one map and goes on in that Service's chain, however many Services there are. What is
//! refused is looked up earlier, in chains of type `filter`: address translation sees only what may be translated.

use super::{
    batch::{Batch, Element, Hook, Set, VERDICT_TYPE, Value, Verdict, set_flags},
    expressions::{Comparison, End, Expressions, SetRef, address_bytes, address_registers},
};
use crate::{
    network::{MASQUERADE_MARK, Network, loopback_range, multicast_range},
    rules::Family,
};

/// Address, transport, port: where Services are served.
pub(super) const SERVICE_IPS: &str = "service_ips";
/// Transport, port at the node's addresses.
pub(super) const SERVICE_NODE_PORTS: &str = "service_node_ports";
/// What is answered by a refusal, or not at all.
pub(super) const REFUSED_IPS: &str = "refused_ips";
/// The same for node ports.
pub(super) const REFUSED_NODE_PORTS: &str = "refused_node_ports";
/// Load balancers' addresses that not everybody may use.
pub(super) const FIREWALL_IPS: &str = "firewall_ips";
/// All ClusterIPs: a port of one that is not served is refused.
pub(super) const CLUSTER_IPS: &str = "cluster_ips";
/// Endpoints, twice: connections that come back to where they started.
pub(super) const HAIRPINS: &str = "hairpins";
/// The node's addresses on which node ports are served.
const NODE_IPS: &str = "node_ips";

/// Refuses.
pub(super) const REJECT_CHAIN: &str = "reject";

const IPV4_TYPE: u32 = 7;
const IPV6_TYPE: u32 = 8;
const PROTOCOL_TYPE: u32 = 12;
const PORT_TYPE: u32 = 13;

/// `enum nf_inet_hooks`.
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// As `nft` writes types of several parts.
fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| (all << 6) | one)
}

pub(super) fn address_type(family: Family) -> u32 {
    match family {
        Family::V4 => IPV4_TYPE,
        Family::V6 => IPV6_TYPE,
    }
}

/// Type and length of an endpoint: address and port.
pub(super) fn endpoint_type(family: Family) -> (u32, usize) {
    (concatenated(&[address_type(family), PORT_TYPE]), address_bytes(family) + 4)
}

/// Add the table, in place of one that is there.
pub(super) fn add(batch: &mut Batch, family: Family, network: &Network) -> Vec<(&'static str, usize)> {
    batch.add_table(family);
    batch.delete_table(family);
    batch.add_table(family);
    add_sets(batch, family, network);
    let mut chains = Chains { batch, family, rules: Vec::new() };
    add_chains(&mut chains, family, network);
    chains.rules
}

fn add_sets(batch: &mut Batch, family: Family, network: &Network) {
    let address = address_bytes(family);
    let three = (concatenated(&[address_type(family), PROTOCOL_TYPE, PORT_TYPE]), address + 8);
    let two = (concatenated(&[PROTOCOL_TYPE, PORT_TYPE]), 8);
    let verdicts = Some((VERDICT_TYPE, 0));
    let sets = [
        (SERVICE_IPS, three, verdicts),
        (SERVICE_NODE_PORTS, two, verdicts),
        (REFUSED_IPS, three, verdicts),
        (REFUSED_NODE_PORTS, two, verdicts),
        (FIREWALL_IPS, three, verdicts),
        (CLUSTER_IPS, (address_type(family), address), None),
        (HAIRPINS, (concatenated(&[address_type(family); 2]), 2 * address), None),
        (NODE_IPS, (address_type(family), address), None),
    ];
    for (name, (key_type, key_bytes), data) in sets {
        let flags = if data.is_some() { set_flags::MAP } else { 0 };
        batch.add_set(family, &Set { name, flags, key_type, key_bytes, data, timeout_ms: None, size: None });
    }
    let node_ips: Vec<Vec<u8>> = network.node_ips(family).map(super::plan::address_key).collect();
    let elements: Vec<Element<'_>> =
        node_ips.iter().map(|key| Element { key, value: &Value::None }).collect();
    batch.add_elements(family, NODE_IPS, None, &elements);
}

/// Chains as they are added, with the number of their rules.
struct Chains<'a> {
    batch: &'a mut Batch,
    family: Family,
    rules: Vec<(&'static str, usize)>,
}

impl Chains<'_> {
    fn add(&mut self, name: &'static str, hook: Option<Hook>, rules: &[Expressions]) {
        self.batch.add_chain(self.family, name, hook);
        for rule in rules {
            self.batch.add_rule(self.family, name, rule);
        }
        self.rules.push((name, rules.len()));
    }
}

fn add_chains(chains: &mut Chains<'_>, family: Family, network: &Network) {
    let rule = Expressions::new;
    let ports = address_registers(family);
    let by_address = |map| {
        rule()
            .load_address(family, End::Destination, 0)
            .load_protocol_and_port(ports)
            .verdict_of(0, SetRef::named(map))
    };
    let serves_all = network.is_every_address(family);
    let at_node = || {
        if serves_all {
            rule()
                .address(End::Destination, Comparison::NotEqual, loopback_range(family))
                .is_local(End::Destination, Comparison::Equal)
        } else {
            rule().load_address(family, End::Destination, 0).is_in(0, SetRef::named(NODE_IPS))
        }
    };
    let by_node_port = |map| at_node().load_protocol_and_port(0).verdict_of(0, SetRef::named(map));

    // A reset needs no address of this machine, and the kernel does not limit how many it sends.
    chains.add(REJECT_CHAIN, None, &[rule().is_tcp().reset(), rule().reject(family)]);

    let mut services = Vec::new();
    let mut from_outside =
        rule().load_address(family, End::Destination, 0).is_in(0, SetRef::named(CLUSTER_IPS));
    let mut has_cidrs = false;
    for cidr in network.cidrs_of(family) {
        has_cidrs = true;
        from_outside = from_outside.address(End::Source, Comparison::NotEqual, cidr);
    }
    if has_cidrs {
        services.push(from_outside.set_mark(MASQUERADE_MARK));
    }
    services.push(by_address(SERVICE_IPS));
    services.push(by_node_port(SERVICE_NODE_PORTS));
    chains.add("services", None, &services);

    // What a firewall lets through is done with these: it comes last.
    let refused = [by_address(REFUSED_IPS), by_node_port(REFUSED_NODE_PORTS), by_address(FIREWALL_IPS)];
    chains.add("refused", None, &refused);

    let filter = |number, priority| Some(Hook { kind: "filter", number, priority });
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    let new_to = |chain: &str| rule().is_new().jump(chain);
    chains.add("filter_prerouting", filter(PREROUTING, -110), &[new_to("refused")]);
    chains.add("filter_output", filter(OUTPUT, -110), &[new_to("refused")]);
    chains.add("nat_prerouting", nat(PREROUTING, -100), &[rule().jump("services")]);
    chains.add("nat_output", nat(OUTPUT, -100), &[rule().jump("services")]);
    // After translation: whatever is still for a ClusterIP is for a port that no Service has.
    let closed = rule()
        .is_new()
        .load_address(family, End::Destination, 0)
        .is_in(0, SetRef::named(CLUSTER_IPS))
        .end_with(&Verdict::Goto(REJECT_CHAIN.to_owned()));
    chains.add("closed_prerouting", filter(PREROUTING, -90), std::slice::from_ref(&closed));
    chains.add("closed_output", filter(OUTPUT, -90), std::slice::from_ref(&closed));
    chains.add("nat_postrouting", nat(POSTROUTING, 100), &postrouting(family, network));
}

fn postrouting(family: Family, network: &Network) -> Vec<Expressions> {
    let rule = Expressions::new;
    let mut rules = vec![
        rule().has_mark(MASQUERADE_MARK).clear_mark(MASQUERADE_MARK).masquerade(),
        // A pod that reaches itself through its Service: the answer must come back this way. What this machine's own sockets
        // send does anyway.
        rule()
            .is_translated()
            .is_local(End::Source, Comparison::NotEqual)
            .load_address(family, End::Source, 0)
            .load_address(family, End::Destination, address_registers(family))
            .is_in(0, SetRef::named(HAIRPINS))
            .masquerade(),
    ];
    let multicast = multicast_range(family);
    for cidr in network.cidrs_of(family) {
        let mut outwards = rule().address(End::Source, Comparison::Equal, cidr).address(
            End::Destination,
            Comparison::NotEqual,
            multicast,
        );
        for inside in network.cidrs_of(family) {
            outwards = outwards.address(End::Destination, Comparison::NotEqual, inside);
        }
        // A pod whose address is this machine's own speaks to the machine itself over the loopback interface.
        rules.push(outwards.is_local(End::Destination, Comparison::NotEqual).masquerade());
    }
    rules
}

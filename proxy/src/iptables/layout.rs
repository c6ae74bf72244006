//! The chains that do not depend on Services.

use super::restore::{FILTER, NAT, Table};
use crate::{
    network::{MASQUERADE_MARK, Network, loopback_range, multicast_range},
    rules::Family,
};

/// What every chain of ours begins with.
pub(super) const PREFIX: &str = "WHERRY-";

/// Marks a packet for masquerading.
pub(super) const MARK_CHAIN: &str = "WHERRY-MARK-MASQ";
/// Marks what does not come from the cluster's pods.
pub(super) const OFF_CLUSTER_CHAIN: &str = "WHERRY-OFF-CLUSTER";
/// By address, all Services.
pub(super) const IPS_CHAIN: &str = "WHERRY-IPS";
/// By node port, all Services.
pub(super) const NODE_PORTS_CHAIN: &str = "WHERRY-NODEPORTS";
/// Refused addresses.
pub(super) const REFUSED_IPS_CHAIN: &str = "WHERRY-REFUSED-IPS";
/// Refused node ports.
pub(super) const REFUSED_NODE_PORTS_CHAIN: &str = "WHERRY-REFUSED-NP";

const SERVICES_CHAIN: &str = "WHERRY-SERVICES";
const REFUSED_CHAIN: &str = "WHERRY-REFUSED";
const FORWARD_CHAIN: &str = "WHERRY-FORWARD";
const POSTROUTING_CHAIN: &str = "WHERRY-POSTROUTING";
const OUTWARDS_CHAIN: &str = "WHERRY-OUTWARDS";

/// Chains with their rules, in a table.
type Chains = Vec<(&'static str, Vec<String>)>;

/// The chains of table `nat`.
fn nat_chains(family: Family, network: &Network) -> Chains {
    let mut services = vec![format!("-j {IPS_CHAIN}")];
    services.extend(at_node(family, network).into_iter().map(|at| format!("{at} -j {NODE_PORTS_CHAIN}")));
    let mut off_cluster: Vec<String> =
        network.cidrs_of(family).map(|cidr| format!("-s {cidr} -j RETURN")).collect();
    off_cluster.push(format!("-j {MARK_CHAIN}"));
    let mut outwards: Vec<String> =
        network.cidrs_of(family).map(|cidr| format!("-d {cidr} -j RETURN")).collect();
    outwards.push(format!("-d {} -j RETURN", multicast_range(family)));
    outwards.push("-j MASQUERADE --random-fully".to_owned());
    let mut postrouting: Vec<String> = network
        .cidrs_of(family)
        .map(|cidr| format!("-s {cidr} -m addrtype ! --dst-type LOCAL -j {OUTWARDS_CHAIN}"))
        .collect();
    postrouting.push(format!("-m mark ! --mark {MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x} -j RETURN"));
    postrouting.push(format!("-j MARK --xor-mark {MASQUERADE_MARK:#x}"));
    postrouting.push("-j MASQUERADE --random-fully".to_owned());
    vec![
        (SERVICES_CHAIN, services),
        (IPS_CHAIN, Vec::new()),
        (NODE_PORTS_CHAIN, Vec::new()),
        (MARK_CHAIN, vec![format!("-j MARK --or-mark {MASQUERADE_MARK:#x}")]),
        (OFF_CLUSTER_CHAIN, off_cluster),
        (OUTWARDS_CHAIN, outwards),
        (POSTROUTING_CHAIN, postrouting),
    ]
}

/// The chains of table `filter`.
fn filter_chains(family: Family, network: &Network) -> Chains {
    let mut refused = vec![format!("-j {REFUSED_IPS_CHAIN}")];
    refused
        .extend(at_node(family, network).into_iter().map(|at| format!("{at} -j {REFUSED_NODE_PORTS_CHAIN}")));
    let forward = vec![
        format!("-m mark --mark {MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x} -j ACCEPT"),
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
    ];
    vec![
        (REFUSED_CHAIN, refused),
        (REFUSED_IPS_CHAIN, Vec::new()),
        (REFUSED_NODE_PORTS_CHAIN, Vec::new()),
        (FORWARD_CHAIN, forward),
    ]
}

/// The chains of a table, callees and callers in any order.
pub(super) fn chains(table: Table, family: Family, network: &Network) -> Chains {
    match table {
        NAT => nat_chains(family, network),
        _ => filter_chains(family, network),
    }
}

/// The rules that lead into our chains: built-in chain and rule.
pub(super) fn jumps(table: Table) -> Vec<(&'static str, String)> {
    match table {
        NAT => vec![
            ("PREROUTING", format!("-j {SERVICES_CHAIN}")),
            ("OUTPUT", format!("-j {SERVICES_CHAIN}")),
            ("POSTROUTING", format!("-j {POSTROUTING_CHAIN}")),
        ],
        FILTER => {
            let mut jumps = vec![("FORWARD", format!("-j {FORWARD_CHAIN}"))];
            jumps.extend(
                ["INPUT", "FORWARD", "OUTPUT"]
                    .map(|chain| (chain, format!("-m conntrack --ctstate NEW -j {REFUSED_CHAIN}"))),
            );
            jumps
        }
        _ => Vec::new(),
    }
}

/// Packets to an address on which node ports are served.
fn at_node(family: Family, network: &Network) -> Vec<String> {
    if network.is_every_address(family) {
        return vec![format!("! -d {} -m addrtype --dst-type LOCAL", loopback_range(family))];
    }
    network.node_ips(family).map(|ip| format!("-d {ip}")).collect()
}

//! Which endpoints of a Service port may be used.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::{
    api::{
        core::v1::ServicePort,
        discovery::v1::{Endpoint, EndpointHints, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Family, NodeInfo};

/// The endpoints that each traffic policy allows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) cluster: Vec<SocketAddr>,
    pub(super) local: Vec<SocketAddr>,
    pub(super) has_any: bool,
}

/// One address that answers, or still does.
struct Candidate<'a> {
    address: SocketAddr,
    is_ready: bool,
    is_local: bool,
    endpoint: &'a Endpoint,
}

/// The ready endpoints of a port; where there are none, those that still serve while they terminate. Hints narrow the
/// cluster's down, as long as they leave any.
pub(super) fn of_port(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    family: Family,
    node: &NodeInfo,
) -> Endpoints {
    let candidates = candidates(slices, port, family, node);
    let chosen = |candidates: &mut dyn Iterator<Item = &Candidate<'_>>| -> Vec<SocketAddr> {
        let addresses: BTreeSet<SocketAddr> = candidates.map(|candidate| candidate.address).collect();
        addresses.into_iter().collect()
    };
    let ready: Vec<&Candidate<'_>> = candidates.iter().filter(|candidate| candidate.is_ready).collect();
    let cluster = if ready.is_empty() {
        chosen(&mut candidates.iter())
    } else {
        chosen(&mut hinted(&ready, node).into_iter())
    };
    let local_ready = chosen(&mut ready.iter().copied().filter(|candidate| candidate.is_local));
    let local = if local_ready.is_empty() {
        chosen(&mut candidates.iter().filter(|candidate| candidate.is_local))
    } else {
        local_ready
    };
    Endpoints { cluster, local, has_any: !candidates.is_empty() }
}

/// How many ready endpoints of a Service are on the node, by address.
pub(super) fn local_ready_count(slices: &[&EndpointSlice], node: &NodeInfo) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let local = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        endpoint.node_name.as_deref() == Some(&node.name) && conditions.and_then(|c| c.ready).unwrap_or(true)
    });
    local.flat_map(|endpoint| endpoint.addresses.first()).collect::<BTreeSet<_>>().len()
}

fn candidates<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    family: Family,
    node: &NodeInfo,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        let Some(number) = slice_port(slice, port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            // Absent means true, except for `terminating`. `publishNotReadyAddresses` is in `ready` already.
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let is_serving = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
            let is_terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let is_usable = is_ready || is_serving && is_terminating;
            if !is_usable {
                continue;
            }
            let is_local = endpoint.node_name.as_deref() == Some(&node.name);
            // An endpoint's addresses are interchangeable: the first stands for all.
            let Some(ip) = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok())
            else {
                continue;
            };
            if Family::of(ip) == family {
                let address = SocketAddr::new(ip, number);
                candidates.push(Candidate { address, is_ready, is_local, endpoint });
            }
        }
    }
    candidates
}

/// Those that are meant for this node, or else for its zone. Hints count only if every endpoint has one: else the slices are
/// in the middle of a change.
fn hinted<'a, 'b>(ready: &[&'b Candidate<'a>], node: &NodeInfo) -> Vec<&'b Candidate<'a>> {
    let meant = |has: &dyn Fn(&EndpointHints) -> bool, is_meant: &dyn Fn(&EndpointHints) -> bool| {
        let is_hint = |c: &&Candidate<'a>, test: &dyn Fn(&EndpointHints) -> bool| {
            c.endpoint.hints.as_ref().is_some_and(test)
        };
        let all = ready.iter().all(|candidate| is_hint(candidate, has));
        let meant: Vec<_> = ready.iter().filter(|c| all && is_hint(c, is_meant)).copied().collect();
        (!meant.is_empty()).then_some(meant)
    };
    let of_node = meant(&|hints| hints.for_nodes.as_ref().is_some_and(|nodes| !nodes.is_empty()), &|hints| {
        hints.for_nodes.iter().flatten().any(|hint| hint.name == node.name)
    });
    let of_zone = || {
        let zone = node.zone.as_deref()?;
        meant(&|hints| hints.for_zones.as_ref().is_some_and(|zones| !zones.is_empty()), &|hints| {
            hints.for_zones.iter().flatten().any(|hint| hint.name == zone)
        })
    };
    of_node.or_else(of_zone).unwrap_or_else(|| ready.to_vec())
}

fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let wanted_name = port.name.as_deref().unwrap_or_default();
    let wanted_protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == wanted_name
            && candidate.protocol.as_deref().unwrap_or("TCP") == wanted_protocol
    })?;
    let number = match (found.port, &port.target_port) {
        (Some(number), _) => number,
        (None, Some(IntOrString::Int(number))) => *number,
        (None, _) => port.port,
    };
    u16::try_from(number).ok().filter(|number| *number != 0)
}

//! The kernel's memory of UDP flows: a client that goes on sending would be led to an endpoint that is gone for as long as it
//! sends. Flows that a Service no longer allows are removed; the next datagram is translated anew.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h. kube-proxy does the same (`pkg/proxy/conntrack`).

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_bindings::{
    conntrack::{IterableConntrackAttrs, IterableTupleAttrs, Nfgenmsg, Request},
    traits::{NetlinkRequest, Protocol as Netlink},
    utils::{align, finalize_nested_header, push_header, push_nested_header},
};
use netlink_socket2::NetlinkSocket;

use crate::rules::{Difference, Protocol, Target};

const NETLINK_NETFILTER: u16 = 12;
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = (1 << 8) | 2;

/// One direction of a flow, as it was first seen, and who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    from: SocketAddr,
    to: SocketAddr,
    /// The other direction's source: the endpoint, if the flow is translated.
    answered_by: SocketAddr,
    zone: Option<u16>,
}

/// Which endpoints the Services that changed allow. Pure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allowed {
    at: HashMap<SocketAddr, HashSet<SocketAddr>>,
    at_node_ports: HashMap<u16, HashSet<SocketAddr>>,
}

impl Allowed {
    fn new(differences: &[Difference<'_>]) -> Self {
        let mut allowed = Self::default();
        for difference in differences.iter().filter(|difference| difference.name.protocol == Protocol::Udp) {
            for rule in difference.old.into_iter().chain(difference.new) {
                let is_new = difference.new.is_some_and(|new| std::sync::Arc::ptr_eq(new, rule));
                let mut endpoints = HashSet::new();
                let mut internal = HashSet::new();
                if is_new {
                    let of = |target| match target {
                        Target::Endpoints(endpoints) => endpoints.iter().copied().collect::<HashSet<_>>(),
                        Target::Reject | Target::Drop => HashSet::new(),
                    };
                    internal = of(rule.internal_target());
                    // From this node every endpoint may be used.
                    endpoints = of(rule.external_target());
                    endpoints.extend(of(rule.short_cut_target()));
                }
                allowed.at.entry(SocketAddr::new(rule.cluster_ip, rule.port)).or_default().extend(internal);
                for ip in rule.outside_ips() {
                    allowed.at.entry(SocketAddr::new(ip, rule.port)).or_default().extend(&endpoints);
                }
                if let Some(port) = rule.node_port {
                    allowed.at_node_ports.entry(port).or_default().extend(&endpoints);
                }
            }
        }
        allowed
    }

    fn is_empty(&self) -> bool {
        self.at.is_empty() && self.at_node_ports.is_empty()
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        if let Some(endpoints) = self.at.get(&flow.to) {
            return !endpoints.contains(&flow.answered_by);
        }
        // A flow to such a port of another machine is not translated here.
        flow.answered_by != flow.to
            && self
                .at_node_ports
                .get(&flow.to.port())
                .is_some_and(|endpoints| !endpoints.contains(&flow.answered_by))
    }
}

/// Remove the UDP flows that the new rules do not allow; returns how many. Blocks for as long as the kernel takes to list its
/// flows.
///
/// # Errors
/// The kernel's flows cannot be listed.
pub(crate) fn forget_stale(differences: &[Difference<'_>]) -> io::Result<usize> {
    let allowed = Allowed::new(differences);
    if allowed.is_empty() {
        return Ok(0);
    }
    let stale: Vec<Flow> = udp_flows()?.into_iter().filter(|flow| allowed.is_stale(flow)).collect();
    let mut socket = NetlinkSocket::new();
    let mut removed = 0;
    for flow in &stale {
        let request = Delete::new(flow);
        let mut reply = socket.request(&request)?;
        match reply.recv_ack() {
            Ok(()) => removed += 1,
            // It ended by itself.
            Err(error) if error.as_io_error().kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(?flow, %error, "cannot remove a UDP flow"),
        }
    }
    if removed > 0 {
        tracing::debug!(removed, "UDP flows of endpoints that are gone");
    }
    Ok(removed)
}

fn udp_flows() -> io::Result<Vec<Flow>> {
    let mut socket = NetlinkSocket::new();
    let request = Request::new().op_get_dump(&Nfgenmsg::new());
    let mut reply = socket.request(&request)?;
    let mut flows = Vec::new();
    while let Some((_, attributes)) = reply.recv().transpose()? {
        flows.extend(udp_flow(&attributes));
    }
    Ok(flows)
}

fn udp_flow(attributes: &IterableConntrackAttrs<'_>) -> Option<Flow> {
    let original = attributes.get_tuple_orig().ok()?;
    if original.get_tuple_proto().ok()?.get_proto_num().ok()? != Protocol::Udp.number() {
        return None;
    }
    let (from, to) = ends(&original)?;
    let (answered_by, _) = ends(&attributes.get_tuple_reply().ok()?)?;
    Some(Flow { from, to, answered_by, zone: attributes.get_zone().ok() })
}

fn ends(tuple: &IterableTupleAttrs<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, ports) = (tuple.get_tuple_ip().ok()?, tuple.get_tuple_proto().ok()?);
    let from = match ip.get_ip_v4_src() {
        Ok(from) => IpAddr::from(from),
        Err(_) => IpAddr::from(ip.get_ip_v6_src().ok()?),
    };
    let to = match ip.get_ip_v4_dst() {
        Ok(to) => IpAddr::from(to),
        Err(_) => IpAddr::from(ip.get_ip_v6_dst().ok()?),
    };
    Some((
        SocketAddr::new(from, ports.get_proto_src_port().ok()?),
        SocketAddr::new(to, ports.get_proto_dst_port().ok()?),
    ))
}

/// A message that the bindings lack: a flow is deleted by its first direction.
struct Delete {
    bytes: Vec<u8>,
}

impl Delete {
    fn new(flow: &Flow) -> Self {
        let mut bytes = vec![if flow.to.is_ipv4() { 2 } else { 10 }, 0, 0, 0];
        let tuple = push_nested_header(&mut bytes, 1);
        let ip = push_nested_header(&mut bytes, 1);
        for (attribute, address) in [(0, flow.from.ip()), (1, flow.to.ip())] {
            match address {
                IpAddr::V4(ip) => push(&mut bytes, attribute + 1, &ip.octets()),
                IpAddr::V6(ip) => push(&mut bytes, attribute + 3, &ip.octets()),
            }
        }
        finalize_nested_header(&mut bytes, ip);
        let ports = push_nested_header(&mut bytes, 2);
        push(&mut bytes, 1, &[Protocol::Udp.number()]);
        push(&mut bytes, 2, &flow.from.port().to_be_bytes());
        push(&mut bytes, 3, &flow.to.port().to_be_bytes());
        finalize_nested_header(&mut bytes, ports);
        finalize_nested_header(&mut bytes, tuple);
        if let Some(zone) = flow.zone {
            push(&mut bytes, 18, &zone.to_be_bytes());
        }
        Self { bytes }
    }
}

fn push(bytes: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    push_header(bytes, attribute, u16::try_from(value.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(value);
    align(bytes);
}

impl NetlinkRequest for Delete {
    type ReplyType<'buf> = ();

    fn protocol(&self) -> Netlink {
        Netlink::Raw { protonum: NETLINK_NETFILTER, request_type: DELETE }
    }

    fn flags(&self) -> u16 {
        0
    }

    fn payload(&self) -> &[u8] {
        &self.bytes
    }

    fn decode_reply(_: &[u8]) -> Self::ReplyType<'_> {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rules::{NodeInfo, Ruleset, compute};

    fn ruleset(endpoints: &str) -> Ruleset {
        let service = r#"{"metadata":{"name":"dns","namespace":"d"},"spec":{"clusterIP":"10.96.0.10","type":"NodePort",
            "ports":[{"port":53,"protocol":"UDP","nodePort":30053},{"name":"tcp","port":53,"protocol":"TCP"}]}}"#;
        let slice = format!(
            r#"{{"addressType":"IPv4","metadata":{{"name":"dns-1","namespace":"d","labels":{{"kubernetes.io/service-name":"dns"}}}},
                "ports":[{{"port":5353,"protocol":"UDP"}}],"endpoints":{endpoints}}}"#
        );
        let (service, slice) =
            (serde_json::from_str(service).unwrap(), serde_json::from_str(&slice).unwrap());
        compute(&[Arc::new(service)], &[Arc::new(slice)], &NodeInfo::default())
    }

    fn flow(to: &str, answered_by: &str) -> Flow {
        Flow {
            from: "10.0.0.9:4000".parse().unwrap(),
            to: to.parse().unwrap(),
            answered_by: answered_by.parse().unwrap(),
            zone: None,
        }
    }

    #[test]
    fn flows_to_endpoints_that_are_gone_and_untranslated_flows_to_a_service_are_stale() {
        let old = ruleset(r#"[{"addresses":["10.0.0.2"]},{"addresses":["10.0.0.3"]}]"#);
        let new = ruleset(r#"[{"addresses":["10.0.0.3"]}]"#);
        let none = Ruleset::default();
        let table = [
            (&new, "10.96.0.10:53", "10.0.0.2:5353", true),
            (&new, "10.96.0.10:53", "10.0.0.3:5353", false),
            (&new, "10.96.0.10:53", "10.96.0.10:53", true),
            (&new, "192.0.2.1:30053", "10.0.0.2:5353", true),
            (&new, "192.0.2.1:30053", "10.0.0.3:5353", false),
            (&new, "192.0.2.1:30053", "192.0.2.1:30053", false),
            (&new, "10.96.0.11:53", "10.0.0.2:5353", false),
            (&none, "10.96.0.10:53", "10.0.0.3:5353", true),
        ];
        for (new, to, answered_by, want) in table {
            let allowed = Allowed::new(&Ruleset::differences(&old, new));
            assert_eq!(allowed.is_stale(&flow(to, answered_by)), want, "{to} {answered_by}");
        }
        assert!(Allowed::new(&Ruleset::differences(&new, &new)).is_empty());
    }
}

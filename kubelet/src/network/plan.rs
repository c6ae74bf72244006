//! What the kernel should have, and what is to be done to get there. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::TUNNEL;
use super::range::NodeRange;

/// The port of VXLAN. Source: IANA, RFC 7348.
pub const VXLAN_PORT: u16 = 4789;
/// The network identifier of the tunnel.
pub const VXLAN_ID: u32 = 1;

/// A route. Only one may lead to the same range in the same table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The range that it leads to.
    pub to: Ipv4Net,
    /// How.
    pub kind: RouteKind,
}

/// How a route leads there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Every address of the range is this machine's own. In table `local`.
    Local {
        /// With which address this machine speaks to them.
        source: Ipv4Addr,
    },
    /// The range is answered by translation before a packet leaves; the route only lets it set out.
    Translated {
        /// With which address this machine speaks to them.
        source: Ipv4Addr,
    },
    /// Nobody has what no narrower route leads to: it must not leave by the default route.
    Unreachable,
    /// By a node on the same link.
    Via {
        /// The node.
        gateway: Ipv4Addr,
        /// The device.
        link: String,
    },
    /// By the other end of a tunnel.
    Tunnel {
        /// The other end.
        gateway: Ipv4Addr,
        /// The device.
        link: String,
    },
}

impl Route {
    /// What there can be only one of.
    fn key(&self) -> (bool, Ipv4Net) {
        (matches!(self.kind, RouteKind::Local { .. }), self.to)
    }
}

/// A VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its address, alone on it.
    pub address: Ipv4Addr,
    /// The address that its packets leave with: the node's.
    pub local: Ipv4Addr,
    /// The device that its packets leave by.
    pub underlay: String,
}

/// A node at the other end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// Its end's address.
    pub address: Ipv4Addr,
    /// Its end's hardware address.
    pub mac: [u8; 6],
    /// The node's own address, where packets are sent to.
    pub node: Ipv4Addr,
}

/// Everything of ours that the kernel should have, or has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The tunnel's device.
    pub tunnel: Option<Tunnel>,
    /// The nodes at its other ends.
    pub remotes: BTreeSet<Remote>,
    /// The routes.
    pub routes: BTreeSet<Route>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub node_ip: Ipv4Addr,
    /// Its pods' range.
    pub range: NodeRange,
}

/// Where this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub node_ip: Ipv4Addr,
    /// The device that has it.
    pub link: String,
    /// Who else is on that link.
    pub neighbours: Ipv4Net,
}

/// What makes the node's own range usable.
pub fn own_network(range: &NodeRange, node_ip: Ipv4Addr, services: Option<Ipv4Net>) -> Network {
    let route = |to, kind| Route { to, kind };
    let mut routes = BTreeSet::from([
        route(range.guests, RouteKind::Local { source: node_ip }),
        route(range.all, RouteKind::Unreachable),
    ]);
    routes.extend(services.map(|services| route(services, RouteKind::Translated { source: node_ip })));
    Network { routes, ..Network::default() }
}

/// The way to the other nodes' pods. A tunnel needs the node's own range, for its own end; without it there is none yet.
pub fn peer_network(own: Option<&NodeRange>, place: &Place, peers: &[Peer]) -> Network {
    let mut network = Network::default();
    for peer in peers {
        let to = peer.range.all;
        if peer.node_ip == place.node_ip || own.is_some_and(|own| overlap(own.all, to)) {
            continue;
        }
        let kind = if place.neighbours.contains(&peer.node_ip) {
            RouteKind::Via { gateway: peer.node_ip, link: place.link.clone() }
        } else if own.is_some() {
            let gateway = peer.range.tunnel_address();
            network.remotes.insert(Remote {
                address: gateway,
                mac: peer.range.tunnel_mac(),
                node: peer.node_ip,
            });
            RouteKind::Tunnel { gateway, link: TUNNEL.to_owned() }
        } else {
            continue;
        };
        network.routes.insert(Route { to, kind });
    }
    network.tunnel = own.filter(|_| !network.remotes.is_empty()).map(|own| Tunnel {
        mac: own.tunnel_mac(),
        address: own.tunnel_address(),
        local: place.node_ip,
        underlay: place.link.clone(),
    });
    network
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// One step. They are carried out in the order in which [`differences`] gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove the tunnel's device, and with it all that leads through it.
    RemoveTunnel,
    /// Make the tunnel's device.
    MakeTunnel(Tunnel),
    /// Forget a node at the other end.
    RemoveRemote(Remote),
    /// Tell where a node at the other end is.
    SetRemote(Remote),
    /// Remove a route.
    RemoveRoute(Route),
    /// Make a route, in the place of any other to the same range.
    SetRoute(Route),
}

/// The steps from what is there to what should be. What is right is not touched.
pub fn differences(wanted: &Network, there: &Network) -> Vec<Step> {
    let mut steps = Vec::new();
    let keeps_tunnel = wanted.tunnel == there.tunnel;
    if !keeps_tunnel && there.tunnel.is_some() {
        steps.push(Step::RemoveTunnel);
    }
    if !keeps_tunnel && let Some(tunnel) = &wanted.tunnel {
        steps.push(Step::MakeTunnel(tunnel.clone()));
    }
    // With the device went all that led through it.
    let survives = |route: &&Route| keeps_tunnel || !matches!(route.kind, RouteKind::Tunnel { .. });
    let none = BTreeSet::new();
    let remotes = if keeps_tunnel { &there.remotes } else { &none };
    // One address or hardware address may have moved to another node: the old entry goes first.
    steps.extend(remotes.difference(&wanted.remotes).cloned().map(Step::RemoveRemote));
    steps.extend(wanted.remotes.difference(remotes).cloned().map(Step::SetRemote));
    let routes: BTreeSet<Route> = there.routes.iter().filter(survives).cloned().collect();
    let wanted_keys: BTreeSet<_> = wanted.routes.iter().map(Route::key).collect();
    let superfluous = routes.iter().filter(|route| !wanted_keys.contains(&route.key()));
    steps.extend(superfluous.cloned().map(Step::RemoveRoute));
    steps.extend(wanted.routes.difference(&routes).cloned().map(Step::SetRoute));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn range(text: &str) -> NodeRange {
        NodeRange::parse(text).unwrap()
    }

    fn peer(node_ip: &str, cidr: &str) -> Peer {
        Peer { node_ip: ip(node_ip), range: range(cidr) }
    }

    fn place() -> Place {
        Place { node_ip: ip("192.0.2.1"), link: "eth0".to_owned(), neighbours: net("192.0.2.0/24") }
    }

    fn via(to: &str, gateway: &str) -> Route {
        Route { to: net(to), kind: RouteKind::Via { gateway: ip(gateway), link: "eth0".to_owned() } }
    }

    #[test]
    fn the_guests_half_is_this_machines_own_and_nothing_of_the_range_leaves_it() {
        let network = own_network(&range("10.42.0.0/24"), ip("192.0.2.1"), Some(net("10.43.0.0/16")));
        let source = ip("192.0.2.1");
        let wanted = [
            Route { to: net("10.42.0.0/24"), kind: RouteKind::Unreachable },
            Route { to: net("10.42.0.128/25"), kind: RouteKind::Local { source } },
            Route { to: net("10.43.0.0/16"), kind: RouteKind::Translated { source } },
        ];
        assert_eq!(network.routes, BTreeSet::from(wanted));
        assert_eq!(network.tunnel, None);
    }

    #[test]
    fn neighbours_are_reached_by_their_address_and_others_through_the_tunnel() {
        let own = range("10.42.0.0/24");
        let peers = [
            peer("192.0.2.1", "10.42.0.0/24"),
            peer("192.0.2.2", "10.42.1.0/24"),
            peer("198.51.100.9", "10.42.2.0/24"),
            // Says that it has our range: it is not believed.
            peer("192.0.2.66", "10.42.0.128/25"),
        ];
        let network = peer_network(Some(&own), &place(), &peers);
        let tunnelled = RouteKind::Tunnel { gateway: ip("10.42.2.0"), link: TUNNEL.to_owned() };
        let routes = [via("10.42.1.0/24", "192.0.2.2"), Route { to: net("10.42.2.0/24"), kind: tunnelled }];
        assert_eq!(network.routes, BTreeSet::from(routes));
        let remote =
            Remote { address: ip("10.42.2.0"), mac: [0x0a, 0x58, 10, 42, 2, 0], node: ip("198.51.100.9") };
        assert_eq!(network.remotes, BTreeSet::from([remote]));
        let tunnel = network.tunnel.unwrap();
        assert_eq!(
            (tunnel.address, tunnel.local, tunnel.underlay.as_str()),
            (ip("10.42.0.0"), ip("192.0.2.1"), "eth0")
        );
        // Before the node has its own range, and when all are neighbours, there is no tunnel.
        assert_eq!(peer_network(None, &place(), &peers).routes.len(), 2);
        assert_eq!(peer_network(None, &place(), &peers).tunnel, None);
        assert_eq!(peer_network(Some(&own), &place(), &peers[..2]).tunnel, None);
    }

    #[test]
    fn only_what_differs_is_done_and_what_a_former_run_left_goes() {
        let wanted = Network {
            routes: [via("10.42.1.0/24", "192.0.2.2"), via("10.42.2.0/24", "192.0.2.3")].into(),
            ..Network::default()
        };
        assert_eq!(differences(&wanted, &wanted), []);
        let there = Network {
            routes: [
                via("10.42.1.0/24", "192.0.2.2"),
                // The node has another address now: replaced, not removed.
                via("10.42.2.0/24", "192.0.2.4"),
                via("10.42.9.0/24", "192.0.2.9"),
            ]
            .into(),
            ..Network::default()
        };
        let steps = [
            Step::RemoveRoute(via("10.42.9.0/24", "192.0.2.9")),
            Step::SetRoute(via("10.42.2.0/24", "192.0.2.3")),
        ];
        assert_eq!(differences(&wanted, &there), steps);
    }

    #[test]
    fn a_tunnel_that_is_made_anew_gets_all_its_entries_anew() {
        let (own, far) = (range("10.42.0.0/24"), [peer("198.51.100.9", "10.42.2.0/24")]);
        let wanted = peer_network(Some(&own), &place(), &far);
        let mut there = wanted.clone();
        there.tunnel.as_mut().unwrap().local = ip("192.0.2.7");
        let steps = differences(&wanted, &there);
        let (remote, route) = (wanted.remotes.first().unwrap(), wanted.routes.first().unwrap());
        let all = [
            Step::RemoveTunnel,
            Step::MakeTunnel(wanted.tunnel.clone().unwrap()),
            Step::SetRemote(remote.clone()),
            Step::SetRoute(route.clone()),
        ];
        assert_eq!(steps, all);
        // Nobody needs it any more.
        let without = [Step::RemoveTunnel];
        assert_eq!(differences(&Network::default(), &wanted), without);
    }
}

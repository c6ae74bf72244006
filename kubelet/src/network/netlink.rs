//! What the kernel has, and doing what a plan says: thin, over rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures::{Stream, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use tokio_util::task::AbortOnDropHandle;

use super::plan::{Network, Place, Remote, Route, RouteKind, Step, Tunnel, VXLAN_ID, VXLAN_PORT};
use super::{Error, TUNNEL};

/// The kernel's table of this machine's own addresses. Source: `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

/// The device of addresses that are this machine's own.
const LOOPBACK: &str = "lo";

/// Whose routes are looked at: each part of the pod network knows its own by their protocol number. Both are free in
/// `/etc/iproute2/rt_protos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The node's own range.
    Node,
    /// The ways to other nodes, and the tunnel.
    Peers,
}

impl Owner {
    fn protocol(self) -> RouteProtocol {
        RouteProtocol::Other(match self {
            Self::Node => 87,
            Self::Peers => 88,
        })
    }
}

/// A connection to the kernel, in the network namespace in which it was opened.
pub(super) struct Kernel {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

/// The devices by number and name.
#[derive(Debug, Default)]
struct Links {
    by_index: BTreeMap<u32, String>,
    messages: BTreeMap<String, LinkMessage>,
}

impl Links {
    fn index(&self, name: &str) -> Result<u32, Error> {
        self.messages
            .get(name)
            .map(|link| link.header.index)
            .ok_or_else(|| Error::NoLink { name: name.to_owned() })
    }
}

impl Kernel {
    pub(super) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        Ok(Self { handle, _connection: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Where this node is: the device that has its address.
    pub(super) async fn place(&self, node_ip: Ipv4Addr) -> Result<Place, Error> {
        let addresses = all(self.handle.address().get().execute(), "list addresses").await?;
        let found = addresses.iter().find_map(|address| {
            let has = |wanted: &AddressAttribute| address.attributes.contains(wanted);
            let ip = IpAddr::V4(node_ip);
            if !has(&AddressAttribute::Local(ip)) && !has(&AddressAttribute::Address(ip)) {
                return None;
            }
            Some((address.header.index, Ipv4Net::new(node_ip, address.header.prefix_len).ok()?))
        });
        let (index, range) = found.ok_or(Error::NoNodeAddress { address: node_ip })?;
        let links = self.links().await?;
        let link = links.by_index.get(&index).ok_or(Error::NoNodeAddress { address: node_ip })?;
        Ok(Place { node_ip, link: link.clone(), neighbours: range.trunc() })
    }

    /// How large packets may be on the device that has the node's address, bytes.
    pub(super) async fn mtu(&self, link: &str) -> Result<Option<u32>, Error> {
        let links = self.links().await?;
        let attributes = links.messages.get(link).map(|link| link.attributes.as_slice()).unwrap_or_default();
        Ok(attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(bytes) => Some(*bytes),
            _ => None,
        }))
    }

    /// What there is of `owner`.
    pub(super) async fn observe(&self, owner: Owner) -> Result<Network, Error> {
        let links = self.links().await?;
        let mut network = Network { routes: self.routes(owner, &links).await?, ..Network::default() };
        if owner == Owner::Peers
            && let Some(link) = links.messages.get(TUNNEL)
        {
            network.tunnel = Some(self.tunnel(link, &links).await?);
            network.remotes = self.remotes(link.header.index).await?;
        }
        Ok(network)
    }

    /// Carry out one step.
    pub(super) async fn apply(&self, owner: Owner, step: &Step) -> Result<(), Error> {
        match step {
            Step::RemoveTunnel => self.remove_link(TUNNEL).await,
            Step::MakeTunnel(tunnel) => self.make_tunnel(tunnel).await,
            Step::RemoveRemote(remote) => self.remove_remote(remote).await,
            Step::SetRemote(remote) => self.set_remote(remote).await,
            Step::RemoveRoute(route) => {
                let message = self.route_message(owner, route).await?;
                let removed = self.handle.route().del(message).execute().await;
                gone(removed).map_err(kernel(|| format!("remove the route to {}", route.to)))
            }
            Step::SetRoute(route) => {
                let message = self.route_message(owner, route).await?;
                let set = self.handle.route().add(message).replace().execute().await;
                set.map_err(kernel(|| format!("make the route to {}", route.to)))
            }
        }
    }

    /// Remove a device if there is one of that name.
    pub(super) async fn remove_link(&self, name: &str) -> Result<(), Error> {
        let Ok(index) = self.links().await?.index(name) else { return Ok(()) };
        let removed = self.handle.link().del(index).execute().await;
        gone(removed).map_err(kernel(|| format!("remove the device {name}")))
    }

    async fn links(&self) -> Result<Links, Error> {
        let mut links = Links::default();
        for link in all(self.handle.link().get().execute(), "list devices").await? {
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            if let Some(name) = name {
                links.by_index.insert(link.header.index, name.clone());
                links.messages.insert(name, link);
            }
        }
        Ok(links)
    }

    async fn routes(&self, owner: Owner, links: &Links) -> Result<BTreeSet<Route>, Error> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = all(self.handle.route().get(every).execute(), "list routes").await?;
        let own = routes.iter().filter(|route| route.header.protocol == owner.protocol());
        Ok(own.filter_map(|route| read_route(route, links)).collect())
    }

    async fn tunnel(&self, link: &LinkMessage, links: &Links) -> Result<Tunnel, Error> {
        let unspecified = Ipv4Addr::UNSPECIFIED;
        let mut tunnel =
            Tunnel { mac: [0; 6], address: unspecified, local: unspecified, underlay: String::new() };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(mac) => tunnel.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        let LinkInfo::Data(InfoData::Vxlan(data)) = info else { continue };
                        for item in data {
                            match item {
                                InfoVxlan::Local(local) => tunnel.local = *local,
                                InfoVxlan::Link(index) => {
                                    tunnel.underlay = links.by_index.get(index).cloned().unwrap_or_default();
                                }
                                _ => {}
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        let addresses = all(self.handle.address().get().execute(), "list addresses").await?;
        for address in addresses.iter().filter(|address| address.header.index == link.header.index) {
            for attribute in &address.attributes {
                if let AddressAttribute::Address(IpAddr::V4(ip)) = attribute {
                    tunnel.address = *ip;
                }
            }
        }
        Ok(tunnel)
    }

    async fn remotes(&self, index: u32) -> Result<BTreeSet<Remote>, Error> {
        let of = |family| {
            let request = self.handle.neighbours().get().set_address_family(family);
            all(request.execute(), "list neighbours")
        };
        let mut nodes: BTreeMap<[u8; 6], Ipv4Addr> = BTreeMap::new();
        for entry in of(AddressFamily::Bridge).await?.iter().filter(|entry| entry.header.ifindex == index) {
            if let (Some(mac), Some(node)) = read_neighbour(entry) {
                nodes.insert(mac, node);
            }
        }
        let mut remotes = BTreeSet::new();
        for entry in of(AddressFamily::Inet)
            .await?
            .iter()
            .filter(|entry| entry.header.ifindex == index && entry.header.state == NeighbourState::Permanent)
        {
            if let (Some(mac), Some(address)) = read_neighbour(entry) {
                // Without the other half it is as good as wrong, and is set again.
                let node = nodes.remove(&mac).unwrap_or(Ipv4Addr::UNSPECIFIED);
                remotes.insert(Remote { address, mac, node });
            }
        }
        // Entries of nobody's.
        let rest = nodes.into_iter().map(|(mac, node)| Remote { address: Ipv4Addr::UNSPECIFIED, mac, node });
        remotes.extend(rest);
        Ok(remotes)
    }

    async fn make_tunnel(&self, tunnel: &Tunnel) -> Result<(), Error> {
        let failed = || format!("make the device {TUNNEL}");
        let underlay = self.links().await?.index(&tunnel.underlay)?;
        let message = LinkVxlan::new(TUNNEL, VXLAN_ID)
            .dev(underlay)
            .port(VXLAN_PORT)
            .append_info_data(InfoVxlan::Local(tunnel.local))
            // Who is where is told, never learnt from packets.
            .append_info_data(InfoVxlan::Learning(false))
            .address(tunnel.mac.to_vec())
            .build();
        self.handle.link().add(message).execute().await.map_err(kernel(failed))?;
        let index = self.links().await?.index(TUNNEL)?;
        let address = self.handle.address().add(index, tunnel.address.into(), 32);
        address.execute().await.map_err(kernel(failed))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(kernel(failed))
    }

    async fn set_remote(&self, remote: &Remote) -> Result<(), Error> {
        let failed = || format!("tell the tunnel where {} is", remote.node);
        let index = self.links().await?.index(TUNNEL)?;
        let forward = self
            .handle
            .neighbours()
            .add_bridge(index, &remote.mac)
            .destination(remote.node.into())
            .flags(NeighbourFlags::Own)
            .replace();
        forward.execute().await.map_err(kernel(failed))?;
        let neighbour = self
            .handle
            .neighbours()
            .add(index, remote.address.into())
            .link_layer_address(&remote.mac)
            .replace();
        neighbour.execute().await.map_err(kernel(failed))
    }

    async fn remove_remote(&self, remote: &Remote) -> Result<(), Error> {
        let failed = || format!("make the tunnel forget {}", remote.node);
        let index = self.links().await?.index(TUNNEL)?;
        if !remote.node.is_unspecified() {
            let mut forward = neighbour(AddressFamily::Bridge, index, remote.node);
            forward.header.flags = NeighbourFlags::Own;
            forward.attributes.push(NeighbourAttribute::LinkLayerAddress(remote.mac.to_vec()));
            gone(self.handle.neighbours().del(forward).execute().await).map_err(kernel(failed))?;
        }
        if !remote.address.is_unspecified() {
            let entry = neighbour(AddressFamily::Inet, index, remote.address);
            gone(self.handle.neighbours().del(entry).execute().await).map_err(kernel(failed))?;
        }
        Ok(())
    }

    async fn route_message(&self, owner: Owner, route: &Route) -> Result<RouteMessage, Error> {
        let index = match &route.kind {
            RouteKind::Unreachable => None,
            RouteKind::Local { .. } | RouteKind::Translated { .. } => {
                Some(self.links().await?.index(LOOPBACK)?)
            }
            RouteKind::Via { link, .. } | RouteKind::Tunnel { link, .. } => {
                Some(self.links().await?.index(link)?)
            }
        };
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .protocol(owner.protocol())
            .destination_prefix(route.to.network(), route.to.prefix_len());
        if let Some(index) = index {
            builder = builder.output_interface(index);
        }
        let builder = match &route.kind {
            RouteKind::Local { source } => builder
                .kind(RouteType::Local)
                .table_id(LOCAL_TABLE)
                .scope(RouteScope::Host)
                .pref_source(*source),
            RouteKind::Translated { source } => builder.scope(RouteScope::Link).pref_source(*source),
            RouteKind::Unreachable => builder.kind(RouteType::Unreachable),
            RouteKind::Via { gateway, .. } => builder.gateway(*gateway),
            RouteKind::Tunnel { gateway, .. } => builder.gateway(*gateway).onlink(),
        };
        Ok(builder.build())
    }
}

/// A route of ours as the kernel tells it; `None` for one that is none of the kinds we make, which is left alone.
fn read_route(message: &RouteMessage, links: &Links) -> Option<Route> {
    let (mut to, mut gateway, mut source, mut link) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(*ip),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(*ip),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(*ip),
            RouteAttribute::Oif(index) => link = links.by_index.get(index).cloned(),
            _ => {}
        }
    }
    let source = source.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let kind = match (message.header.kind, gateway, link) {
        (RouteType::Local, ..) => RouteKind::Local { source },
        (RouteType::Unreachable, ..) => RouteKind::Unreachable,
        (RouteType::Unicast, Some(gateway), Some(link))
            if message.header.flags.contains(RouteFlags::Onlink) =>
        {
            RouteKind::Tunnel { gateway, link }
        }
        (RouteType::Unicast, Some(gateway), Some(link)) => RouteKind::Via { gateway, link },
        (RouteType::Unicast, None, Some(_)) => RouteKind::Translated { source },
        _ => return None,
    };
    Some(Route { to: Ipv4Net::new(to?, message.header.destination_prefix_length).ok()?, kind })
}

/// An entry's hardware address, and the address that goes with it.
fn read_neighbour(entry: &NeighbourMessage) -> (Option<[u8; 6]>, Option<Ipv4Addr>) {
    let (mut mac, mut ip) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(*address),
            // The forwarding table's are not told apart by family.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                ip = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    (mac, ip)
}

fn neighbour(family: AddressFamily, index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message
}

async fn all<T>(
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
    step: &'static str,
) -> Result<Vec<T>, Error> {
    let messages = std::pin::pin!(messages);
    messages.try_collect().await.map_err(kernel(|| step.to_owned()))
}

fn kernel(step: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Kernel { step: step(), source }
}

/// What is not there any more need not be removed.
fn gone(removed: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    use rustix::io::Errno;
    match removed {
        Err(rtnetlink::Error::NetlinkError(message))
            if matches!(
                Errno::from_io_error(&message.to_io()),
                Some(Errno::SRCH | Errno::NOENT | Errno::NODEV)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

//! What names there are: Services, endpoints and namespaces in the form in which questions ask for them.
//!
//! Kept up to date per change: a changed object touches its own entries only, whatever the size of the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};

/// Namespace and name.
type Key = (String, String);

/// The label of a slice that names its Service. Source: KEP-752.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All names of the cluster.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashSet<String>,
    services: HashMap<Key, Entry>,
    /// The Service that each slice is of.
    slices: HashMap<Key, Key>,
    /// Services by their own addresses.
    cluster_ips: HashMap<IpAddr, BTreeSet<Key>>,
    /// Services by the addresses of their endpoints.
    endpoint_ips: HashMap<IpAddr, BTreeSet<Key>>,
    /// Counts changes: the serial of the zone.
    serial: u32,
}

/// What is known of one Service: itself and its slices, which come in any order.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) service: Option<ServiceRecords>,
    slices: BTreeMap<String, SliceRecords>,
}

/// A Service as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceRecords {
    pub(super) address: Address,
    pub(super) ports: Vec<Port>,
    /// `publishNotReadyAddresses`: all endpoints count as ready.
    publishes_not_ready: bool,
}

/// Where a Service's name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Its own addresses.
    ClusterIps(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name.
    ExternalName(String),
}

/// A named port. Unnamed ports have no records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    /// In lower case, as in `_tcp`.
    pub(super) protocol: String,
    pub(super) number: u16,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SliceRecords {
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
}

/// An endpoint as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hostname: Option<String>,
    ready: bool,
}

impl Endpoint {
    /// The hostname, or a name made of the address, which identifies an endpoint of a Service.
    pub(super) fn label(&self, address: IpAddr) -> String {
        self.hostname.clone().unwrap_or_else(|| dashed(address))
    }
}

/// `10-0-0-1`, `2001-db8--1`: an address as a label.
pub(super) fn dashed(address: IpAddr) -> String {
    let text = address.to_string().replace(['.', ':'], "-");
    // A label does not begin or end with a hyphen.
    format!(
        "{}{text}{}",
        if text.starts_with('-') { "0" } else { "" },
        if text.ends_with('-') { "0" } else { "" }
    )
}

impl Entry {
    /// The ready endpoints, each with the ports of its slice.
    pub(super) fn ready(&self) -> impl Iterator<Item = (&Endpoint, &[Port])> {
        let all = self.service.as_ref().is_some_and(|service| service.publishes_not_ready);
        self.slices.values().flat_map(move |slice| {
            let ready = slice.endpoints.iter().filter(move |endpoint| all || endpoint.ready);
            ready.map(|endpoint| (endpoint, slice.ports.as_slice()))
        })
    }

    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    /// The addresses of all endpoints, ready or not.
    fn endpoint_addresses(&self) -> HashSet<IpAddr> {
        let endpoints = self.slices.values().flat_map(|slice| &slice.endpoints);
        endpoints.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect()
    }
}

impl Index {
    /// The namespace is there.
    pub fn add_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.extend(namespace.metadata.name.clone());
        self.serial = self.serial.wrapping_add(1);
    }

    /// The namespace is gone.
    pub fn remove_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.remove(namespace.metadata.name.as_deref().unwrap_or_default());
        self.serial = self.serial.wrapping_add(1);
    }

    /// The Service is new or has changed.
    pub fn put_service(&mut self, service: &Service) {
        self.set_service(key_of(&service.metadata), service_records(service));
    }

    /// The Service is gone.
    pub fn remove_service(&mut self, service: &Service) {
        self.set_service(key_of(&service.metadata), None);
    }

    /// The slice is new or has changed.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let key = key_of(&slice.metadata);
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let of = name.map(|name| (key.0.clone(), name.clone()));
        // Its label may have been changed.
        if self.slices.get(&key) != of.as_ref() {
            self.drop_slice(&key);
        }
        if let Some(service) = of {
            self.set_slice(&service, &key.1, Some(slice_records(slice)));
            self.slices.insert(key, service);
        }
    }

    /// The slice is gone.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) {
        self.drop_slice(&key_of(&slice.metadata));
    }

    fn drop_slice(&mut self, key: &Key) {
        if let Some(service) = self.slices.remove(key) {
            self.set_slice(&service, &key.1, None);
        }
    }

    fn set_service(&mut self, key: Key, records: Option<ServiceRecords>) {
        self.serial = self.serial.wrapping_add(1);
        let entry = self.services.entry(key.clone()).or_default();
        if let Some(ServiceRecords { address: Address::ClusterIps(ips), .. }) = &entry.service {
            for ip in ips {
                unlink(&mut self.cluster_ips, *ip, &key);
            }
        }
        if let Some(ServiceRecords { address: Address::ClusterIps(ips), .. }) = &records {
            for ip in ips {
                self.cluster_ips.entry(*ip).or_default().insert(key.clone());
            }
        }
        entry.service = records;
        if entry.is_empty() {
            self.services.remove(&key);
        }
    }

    fn set_slice(&mut self, service: &Key, name: &str, records: Option<SliceRecords>) {
        self.serial = self.serial.wrapping_add(1);
        let entry = self.services.entry(service.clone()).or_default();
        // Another slice may have the same address: what is compared are all of the Service's.
        let before = entry.endpoint_addresses();
        match records {
            Some(records) => {
                entry.slices.insert(name.to_owned(), records);
            }
            None => {
                entry.slices.remove(name);
            }
        }
        let after = entry.endpoint_addresses();
        if entry.is_empty() {
            self.services.remove(service);
        }
        for gone in before.difference(&after) {
            unlink(&mut self.endpoint_ips, *gone, service);
        }
        for new in after.difference(&before) {
            self.endpoint_ips.entry(*new).or_default().insert(service.clone());
        }
    }

    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The Service; slices without one are nobody's.
    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<(&ServiceRecords, &Entry)> {
        let entry = self.services.get(&(namespace.to_owned(), name.to_owned()))?;
        entry.service.as_ref().map(|service| (service, entry))
    }

    /// The Services that have the address as their own, by namespace and name.
    pub(super) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.cluster_ips.get(&address).into_iter().flatten()
    }

    /// The Services that have a ready endpoint with the address.
    pub(super) fn endpoints_at(&self, address: IpAddr) -> impl Iterator<Item = (&Key, &Entry, &Endpoint)> {
        let keys = self.endpoint_ips.get(&address).into_iter().flatten();
        let entries = keys.filter_map(|key| Some((key, self.services.get(key)?)));
        entries.flat_map(move |(key, entry)| {
            let here = entry.ready().filter(move |(endpoint, _)| endpoint.addresses.contains(&address));
            here.map(move |(endpoint, _)| (key, entry, endpoint))
        })
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }
}

fn unlink(index: &mut HashMap<IpAddr, BTreeSet<Key>>, address: IpAddr, key: &Key) {
    if let Some(keys) = index.get_mut(&address) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(&address);
        }
    }
}

fn key_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// `None` while the Service has no address yet.
fn service_records(service: &Service) -> Option<ServiceRecords> {
    let spec = service.spec.as_ref()?;
    let ips = spec.cluster_ips.clone().filter(|ips| !ips.is_empty());
    let ips = ips.unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
    let address = if spec.type_.as_deref() == Some("ExternalName") {
        Address::ExternalName(spec.external_name.clone().filter(|name| !name.is_empty())?)
    } else if ips.first().is_some_and(|ip| ip == "None") {
        Address::Headless
    } else {
        let ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            return None;
        }
        Address::ClusterIps(ips)
    };
    let ports = spec.ports.iter().flatten();
    let ports =
        ports.filter_map(|port| named(port.name.as_deref(), port.protocol.as_deref(), Some(port.port)));
    Some(ServiceRecords {
        address,
        ports: ports.collect(),
        publishes_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
    })
}

fn slice_records(slice: &EndpointSlice) -> SliceRecords {
    let ports = slice.ports.iter().flatten();
    let endpoints = slice.endpoints.iter().flatten().map(|endpoint| Endpoint {
        addresses: endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        hostname: endpoint.hostname.clone().filter(|hostname| !hostname.is_empty()),
        // Absent means ready.
        ready: endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true),
    });
    SliceRecords {
        ports: ports
            .filter_map(|port| named(port.name.as_deref(), port.protocol.as_deref(), port.port))
            .collect(),
        // Addresses of type FQDN are no addresses.
        endpoints: endpoints.filter(|endpoint| !endpoint.addresses.is_empty()).collect(),
    }
}

fn named(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    Some(Port {
        name: name.filter(|name| !name.is_empty())?.to_owned(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: number.and_then(|number| u16::try_from(number).ok())?,
    })
}

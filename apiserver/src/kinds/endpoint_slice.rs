//! EndpointSlice.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::fields::{
    PROTOCOLS, dns_label, dns_subdomain, immutable, invalid_each, labels, non_special_ip, qualified_name, s,
};
use super::json::{default_value, default_zero, each, list, text, typed};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// Most endpoints of a slice, addresses of an endpoint, ports of a slice, entries of a topology.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_ZONE_HINTS: usize = 8;

/// `endpointslices`.
pub(crate) struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "discovery.k8s.io",
            version: "v1",
            name: "endpointslices",
            kind: "EndpointSlice",
            scope: Scope::Namespaced,
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        each(object, "ports", |port| {
            default_value(port, "name", "");
            default_zero(port, "protocol", "TCP");
        });
        // The list is served even if empty.
        default_value(object, "endpoints", Vec::<Value>::new());
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let endpoints: Vec<Endpoint> = match typed(object, &Path::new("endpoints")) {
            Ok(endpoints) => endpoints,
            Err(errors) => return errors,
        };
        let ports: Vec<EndpointPort> = match typed(object, &Path::new("ports")) {
            Ok(ports) => ports,
            Err(errors) => return errors,
        };
        let kind = text(object, "/addressType");
        let mut errors = address_type(kind);
        errors.extend(all_ports(&ports));
        errors.extend(all_endpoints(&endpoints, kind));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        errors.extend(immutable(
            object.get("addressType"),
            old.get("addressType"),
            &Path::new("addressType"),
        ));
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        if text(object, "/addressType") == "FQDN" {
            vec!["addressType: FQDN endpoints are deprecated".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let port = |port: &Value| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None if text(port, "/name").is_empty() => "*".to_owned(),
            None => text(port, "/name").to_owned(),
        };
        let ports: Vec<String> = list(object, "/ports").iter().map(port).collect();
        let addresses = |endpoint: &Value| list(endpoint, "/addresses").to_vec();
        let endpoints: Vec<String> = list(object, "/endpoints")
            .iter()
            .flat_map(addresses)
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let cell = |items: &[String]| {
            let shown = table::with_more(items, 3);
            Value::from(if shown.is_empty() { "<unset>".to_owned() } else { shown })
        };
        Some(vec![
            table::name(object),
            text(object, "/addressType").into(),
            cell(&ports),
            cell(&endpoints),
            table::age(object, now_unix_seconds),
        ])
    }
}

fn address_type(kind: &str) -> ErrorList {
    const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
    let path = Path::new("addressType");
    match kind {
        "" => vec![Error::required(&path, "")],
        _ if TYPES.contains(&kind) => ErrorList::new(),
        _ => vec![Error::not_supported(&path, kind, TYPES)],
    }
}

fn all_ports(ports: &[EndpointPort]) -> ErrorList {
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        return vec![Error::too_many(&path, ports.len(), MAX_PORTS)];
    }
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = s(&port.name);
        if !name.is_empty() {
            errors.extend(dns_label(name, &path.child("name")));
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        match port.protocol.as_deref() {
            None => errors.push(Error::required(&path.child("protocol"), "")),
            Some(protocol) if !PROTOCOLS.contains(&protocol) => {
                errors.push(Error::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
            }
            Some(_) => {}
        }
        if let Some(protocol) = port.app_protocol.as_deref() {
            errors.extend(qualified_name(protocol, &path.child("appProtocol")));
        }
    }
    errors
}

fn all_endpoints(endpoints: &[Endpoint], kind: &str) -> ErrorList {
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![Error::too_many(&path, endpoints.len(), MAX_ENDPOINTS)];
    }
    let mut errors = ErrorList::new();
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i);
        let addresses_path = path.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.push(Error::required(&addresses_path, "must contain at least 1 address"));
        } else if endpoint.addresses.len() > MAX_ADDRESSES {
            errors.push(Error::too_many(&addresses_path, endpoint.addresses.len(), MAX_ADDRESSES));
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            errors.extend(endpoint_address(address, kind, &addresses_path.index(j)));
        }
        if let Some(node) = endpoint.node_name.as_deref() {
            errors.extend(dns_subdomain(node, &path.child("nodeName")));
        }
        if let Some(topology) = &endpoint.deprecated_topology {
            let path = path.child("deprecatedTopology");
            if topology.len() > MAX_TOPOLOGY {
                errors.push(Error::too_many(&path, topology.len(), MAX_TOPOLOGY));
            }
            errors.extend(labels(topology, &path));
            if topology.contains_key("kubernetes.io/hostname") {
                let path = path.key("kubernetes.io/hostname");
                let detail = "may not be set, use nodeName instead";
                errors.push(Error::invalid(&path, "kubernetes.io/hostname", detail));
            }
        }
        if let Some(hostname) = endpoint.hostname.as_deref() {
            errors.extend(dns_label(hostname, &path.child("hostname")));
        }
        let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        let hints_path = path.child("hints").child("forZones");
        if zones.len() > MAX_ZONE_HINTS {
            errors.push(Error::too_many(&hints_path, zones.len(), MAX_ZONE_HINTS));
        }
        let mut seen = BTreeSet::new();
        for (j, zone) in zones.iter().enumerate() {
            let path = hints_path.index(j).child("name");
            if !seen.insert(&zone.name) {
                errors.push(Error::duplicate(&path, zone.name.as_str()));
            }
            errors.extend(invalid_each(&path, &zone.name, names::label_value(&zone.name)));
        }
    }
    errors
}

fn endpoint_address(address: &str, kind: &str, path: &Path) -> ErrorList {
    let checked = |problems: Vec<String>| {
        let found = invalid_each(path, address, problems);
        // The loopback network has pods of its own, so its addresses are allowed.
        if found.is_empty() { non_special_ip(address, path, true) } else { found }
    };
    match kind {
        "IPv4" if names::parse_ip(address).is_some() => checked(names::is_valid_ipv4(address)),
        "IPv6" if names::parse_ip(address).is_some() => checked(names::is_valid_ipv6(address)),
        "IPv4" | "IPv6" => checked(names::is_valid_ip(address)),
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let mut errors = dns_subdomain(name, path);
            if name.split('.').count() < 2 {
                errors.push(Error::invalid(
                    path,
                    address,
                    "should be a domain with at least two segments separated by dots",
                ));
            }
            errors
        }
        _ => ErrorList::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{NOW, facts, messages};

    #[test]
    fn ports_and_addresses_are_checked() {
        let mut slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["not-ip"]}, {"addresses": []}],
            "ports": [{"port": 0, "protocol": "X"}, {"port": 70000}]});
        EndpointSliceStrategy.default(&mut slice);
        assert_eq!(
            messages(&EndpointSliceStrategy.validate(&facts(), &slice)),
            [
                r#"ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP""#,
                r#"ports[1].name: Duplicate value: """#,
                r#"endpoints[0].addresses[0]: Invalid value: "not-ip": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
        let odd = json!({"addressType": "Odd", "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(
            messages(&EndpointSliceStrategy.validate(&facts(), &odd)),
            [r#"addressType: Unsupported value: "Odd": supported values: "FQDN", "IPv4", "IPv6""#]
        );
    }

    #[test]
    fn the_row_shows_ports_and_endpoints() {
        let slice = json!({"metadata": {"name": "e", "creationTimestamp": "2026-01-02T03:03:05Z"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []});
        let cells = EndpointSliceStrategy.table_cells(&slice, NOW).unwrap();
        assert_eq!(Value::from(cells), json!(["e", "IPv4", "<unset>", "10.0.0.1", "60s"]));
    }
}

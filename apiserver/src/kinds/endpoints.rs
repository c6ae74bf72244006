//! Endpoints.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{
    PROTOCOLS, dns_label, dns_subdomain, ip, non_special_ip, port_number, qualified_name, s,
};
use super::json::{default_zero, each, integer, list, remove, text, typed};
use super::table;
use crate::registry::strategy::{RequestFacts, Resource, Scope, Strategy};

/// `endpoints`.
pub(crate) struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "endpoints", kind: "Endpoints", scope: Scope::Namespaced }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        each(object, "subsets", |subset| each(subset, "ports", |port| default_zero(port, "protocol", "TCP")));
        if list(object, "/subsets").is_empty() {
            remove(object, "subsets");
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("subsets");
        let subsets: Vec<EndpointSubset> = match typed(object, &path) {
            Ok(subsets) => subsets,
            Err(errors) => return errors,
        };
        subsets.iter().enumerate().flat_map(|(i, subset)| validate_subset(subset, &path.index(i))).collect()
    }

    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let age = table::age(object, now_unix_seconds);
        Some(vec![table::name(object), endpoints_cell(object).into(), age])
    }
}

fn validate_subset(subset: &EndpointSubset, path: &Path) -> ErrorList {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
    let ports = subset.ports.as_deref().unwrap_or_default();
    let mut errors = ErrorList::new();
    if ready.is_empty() && not_ready.is_empty() {
        errors.push(Error::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (i, address) in addresses.iter().enumerate() {
            errors.extend(validate_address(address, &path.child(field).index(i)));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        errors.extend(validate_port(port, ports.len() > 1, &path.child("ports").index(i)));
    }
    errors
}

fn validate_address(address: &EndpointAddress, path: &Path) -> ErrorList {
    let mut errors = ip(&address.ip, &path.child("ip"));
    if !s(&address.hostname).is_empty() {
        errors.extend(dns_label(s(&address.hostname), &path.child("hostname")));
    }
    if let Some(node) = address.node_name.as_deref() {
        errors.extend(dns_subdomain(node, &path.child("nodeName")));
    }
    // The loopback network has pods of its own, so its addresses are allowed.
    errors.extend(non_special_ip(&address.ip, &path.child("ip"), true));
    errors
}

fn validate_port(port: &EndpointPort, needs_name: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match s(&port.name) {
        "" if needs_name => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => errors.extend(dns_label(name, &path.child("name"))),
    }
    errors.extend(port_number(i64::from(port.port), &path.child("port")));
    match s(&port.protocol) {
        "" => errors.push(Error::required(&path.child("protocol"), "")),
        protocol if !PROTOCOLS.contains(&protocol) => {
            errors.push(Error::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
        }
        _ => {}
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        errors.extend(qualified_name(protocol, &path.child("appProtocol")));
    }
    errors
}

fn endpoints_cell(object: &Value) -> String {
    let subsets = list(object, "/subsets");
    if subsets.is_empty() {
        return table::NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || list(subset, "/addresses").iter().map(|address| text(address, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = integer(port, "/port");
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
            }));
        }
    }
    table::with_more(&all, 3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn subsets_have_addresses_and_named_ports() {
        let object = json!({"subsets": [
            {"ports": [{"port": 0, "protocol": "TCP"}, {"port": 1, "protocol": "X", "name": "b"}]},
            {"addresses": [{"ip": "169.254.1.1"}]},
        ]});
        assert_eq!(
            messages(&EndpointsStrategy.validate(&facts(), &object)),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                r#"subsets[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP""#,
                r#"subsets[1].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)"#,
            ]
        );
    }

    #[test]
    fn the_row_shows_three_endpoints() {
        let object = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(endpoints_cell(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...");
        assert_eq!(endpoints_cell(&json!({})), "<none>");
    }
}

//! Environment variables for the Services that a pod can see.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The namespace of the `kubernetes` Service, which every pod sees.
pub const MASTER_SERVICE_NAMESPACE: &str = "default";
const MASTER_SERVICE: &str = "kubernetes";

/// Whether a Service gives variables to pods of `namespace`.
pub fn is_visible(service: &Service, namespace: &str, enable_service_links: bool) -> bool {
    let own = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let address = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    if address.is_empty() || address == "None" {
        return false;
    }
    (own == MASTER_SERVICE_NAMESPACE && name == MASTER_SERVICE) || (enable_service_links && own == namespace)
}

/// Variables of the visible Services: `{NAME}_SERVICE_HOST`, `{NAME}_SERVICE_PORT` and the older link variables.
pub fn service_environment<'a>(services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let (Some(address), Some(first)) = (&spec.cluster_ip, ports.first()) else { continue };
        let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        variables.insert(format!("{prefix}_SERVICE_HOST"), address.clone());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables
                    .insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
            }
        }
        variables.insert(format!("{prefix}_PORT"), url(address, first));
        for port in ports {
            let protocol = protocol(port);
            let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.insert(format!("{link}_PROTO"), protocol);
            variables.insert(format!("{link}_PORT"), port.port.to_string());
            variables.insert(format!("{link}_ADDR"), address.clone());
            variables.insert(link, url(address, port));
        }
    }
    variables
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.as_deref().unwrap_or("TCP").to_lowercase()
}

fn url(address: &str, port: &ServicePort) -> String {
    if address.contains(':') {
        format!("{}://[{address}]:{}", protocol(port), port.port)
    } else {
        format!("{}://{address}:{}", protocol(port), port.port)
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_gives_its_host_port_and_link_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "p-1", "port": 80}, {"port": 53, "protocol": "UDP"}]},
        }))
        .unwrap();
        assert!(is_visible(&service, "n", true));
        assert!(!is_visible(&service, "n", false));
        assert!(!is_visible(&service, "other", true));
        let variables = service_environment([&service]);
        let expected = [
            ("MY_DB_PORT", "tcp://10.0.0.1:80"),
            ("MY_DB_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("MY_DB_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("MY_DB_PORT_53_UDP_PORT", "53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("MY_DB_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("MY_DB_PORT_80_TCP_PORT", "80"),
            ("MY_DB_PORT_80_TCP_PROTO", "tcp"),
            ("MY_DB_SERVICE_HOST", "10.0.0.1"),
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_P_1", "80"),
        ];
        assert_eq!(variables, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}

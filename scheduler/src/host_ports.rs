//! Ports of the node that pods want for themselves. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::resources::is_sidecar;

const ANY_ADDRESS: &str = "0.0.0.0";

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY_ADDRESS || other.address == ANY_ADDRESS)
    }
}

/// The host ports of the containers that run together.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = pod.spec.as_ref() else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    sidecars.chain(&spec.containers).flat_map(container_host_ports).collect()
}

fn container_host_ports(container: &Container) -> impl Iterator<Item = HostPort> {
    let or = |text: &Option<String>, default: &str| {
        text.as_deref().filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    };
    container.ports.iter().flatten().filter_map(move |port| {
        Some(HostPort {
            address: or(&port.host_ip, ANY_ADDRESS),
            protocol: or(&port.protocol, "TCP"),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(address: &str, protocol: &str, port: i32) -> HostPort {
        HostPort { address: address.to_owned(), protocol: protocol.to_owned(), port }
    }

    #[test]
    fn all_addresses_conflict_with_each() {
        let one = port("127.0.0.1", "TCP", 80);
        for (other, expected) in [
            (port("127.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), true),
            (port("127.0.0.2", "TCP", 80), false),
            (port("0.0.0.0", "UDP", 80), false),
            (port("0.0.0.0", "TCP", 81), false),
        ] {
            assert_eq!(one.conflicts(&other), expected, "{other:?}");
            assert_eq!(other.conflicts(&one), expected, "{other:?}");
        }
    }

    #[test]
    fn only_ports_of_containers_that_run_together_count() {
        let pod = json!({ "metadata": {}, "spec": {
            "initContainers": [
                { "name": "init", "ports": [{ "containerPort": 1, "hostPort": 1 }] },
                { "name": "side", "restartPolicy": "Always", "ports": [{ "containerPort": 2, "hostPort": 2 }] },
            ],
            "containers": [{ "name": "a", "ports": [
                { "containerPort": 3 }, { "containerPort": 4, "hostPort": 4, "hostIP": "127.0.0.1", "protocol": "UDP" },
            ] }],
        } });
        let ports = host_ports(&serde_json::from_value(pod).unwrap());
        assert_eq!(ports, [port("0.0.0.0", "TCP", 2), port("127.0.0.1", "UDP", 4)]);
    }
}

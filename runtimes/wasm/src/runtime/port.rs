//! The port that an HTTP guest is served on.

use std::collections::BTreeMap;

use serde::Deserialize;
use wherry_runtimes::{PortMapping, Protocol};

/// The kubelet's annotation with the container's ports.
const PORTS_ANNOTATION: &str = "io.kubernetes.container.ports";

/// Where a guest is served that says nothing.
const DEFAULT_PORT: u16 = 8080;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    container_port: u16,
    #[serde(default)]
    protocol: String,
}

/// The first TCP port of the container, else of the sandbox, else the variable `PORT`, else 8080.
pub(super) fn http_port(
    annotations: &BTreeMap<String, String>,
    mappings: &[PortMapping],
    env: &[(String, String)],
) -> u16 {
    let of_container = annotations
        .get(PORTS_ANNOTATION)
        .and_then(|json| serde_json::from_str::<Vec<Port>>(json).ok())
        .into_iter()
        .flatten()
        .find(|port| port.container_port != 0 && (port.protocol.is_empty() || port.protocol == "TCP"))
        .map(|port| port.container_port);
    let of_sandbox = || {
        let tcp = mappings.iter().filter(|mapping| mapping.protocol == Protocol::Tcp);
        tcp.filter_map(|mapping| u16::try_from(mapping.container_port).ok()).find(|port| *port != 0)
    };
    let of_env = || {
        let value = env.iter().find(|(name, _)| name == "PORT")?.1.parse::<u16>().ok()?;
        Some(value).filter(|port| *port != 0)
    };
    of_container.or_else(of_sandbox).or_else(of_env).unwrap_or(DEFAULT_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_first_one_said_by_whoever_is_nearest() {
        let ports = |json: &str| BTreeMap::from([(PORTS_ANNOTATION.to_owned(), json.to_owned())]);
        let mapping =
            |protocol, container_port| PortMapping { protocol, container_port, ..Default::default() };
        let env = [("PORT".to_owned(), "7000".to_owned())];
        let both =
            r#"[{"containerPort":53,"protocol":"UDP"},{"name":"http","containerPort":80,"protocol":"TCP"}]"#;
        for (annotations, mappings, env, expected) in [
            (ports(both), vec![mapping(Protocol::Tcp, 9)], &env[..], 80),
            (ports("not json"), vec![mapping(Protocol::Udp, 8), mapping(Protocol::Tcp, 9)], &env[..], 9),
            (ports("[]"), vec![], &env[..], 7000),
            (BTreeMap::new(), vec![mapping(Protocol::Tcp, 0)], &[][..], 8080),
        ] {
            assert_eq!(http_port(&annotations, &mappings, env), expected);
        }
    }
}

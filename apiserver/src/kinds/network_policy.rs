//! NetworkPolicy.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{PROTOCOLS, cidr, label_selector, port_number, port_number_or_name, s};
use super::json::{default_zero, each, is_zero, list, map_at, typed};
use super::table;
use crate::registry::strategy::{RequestFacts, Resource, Scope, Strategy};

/// `networkpolicies`.
pub(crate) struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "networking.k8s.io",
            version: "v1",
            name: "networkpolicies",
            kind: "NetworkPolicy",
            scope: Scope::Namespaced,
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_at(object, "spec") else { return };
        for direction in ["ingress", "egress"] {
            each(spec, direction, |rule| each(rule, "ports", |port| default_zero(port, "protocol", "TCP")));
        }
        if is_zero(spec.get("policyTypes")) {
            let mut types = vec!["Ingress"];
            if !list(spec, "/egress").is_empty() {
                types.push("Egress");
            }
            spec["policyTypes"] = types.into();
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: NetworkPolicySpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = label_selector(spec.pod_selector.as_ref(), &path.child("podSelector"));
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(index);
            errors.extend(ports(rule.ports.as_deref(), &path.child("ports")));
            errors.extend(peers(rule.from.as_deref(), &path.child("from")));
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(index);
            errors.extend(ports(rule.ports.as_deref(), &path.child("ports")));
            errors.extend(peers(rule.to.as_deref(), &path.child("to")));
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let path = path.child("policyTypes");
        if types.len() > 2 {
            let detail = "may not specify more than two policyTypes";
            errors.push(Error::invalid(&path, types.to_vec(), detail));
            return errors;
        }
        for (index, policy_type) in types.iter().enumerate() {
            if !matches!(policy_type.as_str(), "Ingress" | "Egress") {
                let supported = ["Egress", "Ingress"];
                errors.push(Error::not_supported(&path.index(index), policy_type.as_str(), &supported));
            }
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let selector = table::selector_text(object.pointer("/spec/podSelector"));
        Some(vec![
            table::name(object),
            if selector.is_empty() { table::NONE.into() } else { selector.into() },
            table::age(object, now_unix_seconds),
        ])
    }
}

fn ports(ports: Option<&[NetworkPolicyPort]>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let path = path.index(index);
        if let Some(protocol) = port.protocol.as_deref()
            && !PROTOCOLS.contains(&protocol)
        {
            errors.push(Error::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
        }
        match (&port.port, port.end_port) {
            (None, None) => {}
            (None, Some(_)) => {
                errors.push(Error::required(
                    &path.child("port"),
                    "must be specified when `endPort` is specified",
                ));
            }
            (Some(first), end) => {
                errors.extend(port_number_or_name(first, &path.child("port")));
                let Some(end) = end else { continue };
                let path = path.child("endPort");
                match first {
                    IntOrString::String(_) => {
                        errors.push(Error::invalid(
                            &path,
                            end,
                            "may not be specified when `port` is non-numeric",
                        ));
                    }
                    IntOrString::Int(first) => {
                        errors.extend(port_number(i64::from(end), &path));
                        if end < *first {
                            errors.push(Error::invalid(
                                &path,
                                end,
                                "must be greater than or equal to `port`",
                            ));
                        }
                    }
                }
            }
        }
    }
    errors
}

fn peers(peers: Option<&[NetworkPolicyPeer]>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, peer) in peers.into_iter().flatten().enumerate() {
        let path = path.index(index);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        errors.extend(label_selector(peer.pod_selector.as_ref(), &path.child("podSelector")));
        errors.extend(label_selector(peer.namespace_selector.as_ref(), &path.child("namespaceSelector")));
        match &peer.ip_block {
            None if !selects => errors.push(Error::required(&path, "must specify a peer")),
            None => {}
            Some(_) if selects => {
                let detail = "may not specify both ipBlock and another peer";
                errors.push(Error::forbidden(&path, detail));
            }
            Some(block) => {
                let path = path.child("ipBlock");
                if block.cidr.is_empty() {
                    errors.push(Error::required(&path.child("cidr"), ""));
                    continue;
                }
                errors.extend(cidr(&block.cidr, &path.child("cidr")));
                let whole: Option<ipnet::IpNet> = block.cidr.parse().ok();
                for (index, except) in block.except.iter().flatten().enumerate() {
                    let path = path.child("except").index(index);
                    errors.extend(cidr(except, &path));
                    let part: Option<ipnet::IpNet> = except.parse().ok();
                    if let (Some(whole), Some(part)) = (whole, part)
                        && (!whole.contains(&part) || whole.prefix_len() >= part.prefix_len())
                    {
                        let detail =
                            format!("must be a strict subset of `cidr`: {}", s(&Some(block.cidr.clone())));
                        errors.push(Error::invalid(&path, except.as_str(), &detail));
                    }
                }
            }
        }
    }
    errors
}

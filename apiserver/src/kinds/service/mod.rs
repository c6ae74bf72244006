//! Service.

pub(crate) mod allocation;
mod range;
mod update;
mod validation;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wherry_machinery::field::ErrorList;
use wherry_machinery::names;

use super::json::{
    carry_over, default_value, default_zero, each, flag, integer, is_zero, list, map_at, remove, set, text,
    within,
};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// What stands for no cluster IP.
pub(crate) const HEADLESS: &str = "None";

/// `services`.
pub(crate) struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "services", kind: "Service", scope: Scope::Namespaced }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_at(object, "spec") {
            default_spec(spec);
        }
        let is_load_balancer = text(object, "/spec/type") == "LoadBalancer";
        if let Some(status) = map_at(object, "status")
            && let Some(balancer) = map_at(status, "loadBalancer")
            && is_load_balancer
        {
            each(balancer, "ingress", |ingress| {
                if !text(ingress, "/ip").is_empty() {
                    default_value(ingress, "ipMode", "VIP");
                }
            });
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
        within(object, "spec", |spec| {
            let ip = text(spec, "/clusterIP").to_owned();
            if !ip.is_empty() && list(spec, "/clusterIPs").is_empty() {
                set(spec, "clusterIPs", json!([ip]));
            } else if ip.is_empty() && is_zero(spec.get("clusterIP")) {
                remove(spec, "clusterIP");
            }
        });
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Status => carry_over(object, "spec", old),
            Part::Main => {
                carry_over(object, "status", old);
                let nothing = json!({});
                let old_spec = old.get("spec").unwrap_or(&nothing);
                within(object, "spec", |spec| update::prepare(spec, old_spec));
                let is_load_balancer = text(object, "/spec/type") == "LoadBalancer";
                if !is_load_balancer && text(old_spec, "/type") == "LoadBalancer" {
                    set(object, "status", json!({"loadBalancer": {}}));
                }
            }
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        validation::validate(object)
    }

    fn validate_update(&self, _facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        match part {
            Part::Status => validation::validate_status(object),
            Part::Main => {
                let mut errors = update::validate(object, old);
                errors.extend(validation::validate(object));
                errors
            }
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| old.get("spec") == object.get("spec")) {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let mut warn = |given: bool, what: &str| {
            if given {
                warnings.push(what.to_owned());
            }
        };
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let headless = is_headless(spec);
        let hints = object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get("service.kubernetes.io/topology-aware-hints"));
        warn(
            hints.is_some(),
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
        );
        warn(
            !list(spec, "/externalIPs").is_empty(),
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        );
        warn(
            text(spec, "/type") != "ExternalName" && !text(spec, "/externalName").is_empty(),
            r#"spec.externalName is ignored when spec.type is not "ExternalName""#,
        );
        warn(
            headless && !text(spec, "/loadBalancerIP").is_empty(),
            "spec.loadBalancerIP is ignored for headless services",
        );
        warn(
            headless && !list(spec, "/externalIPs").is_empty(),
            "spec.externalIPs is ignored for headless services",
        );
        warn(
            headless && text(spec, "/sessionAffinity") == "ClientIP",
            "spec.SessionAffinity is ignored for headless services",
        );
        warnings
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("spec.clusterIP", text(object, "/spec/clusterIP").to_owned()),
            ("spec.type", text(object, "/spec/type").to_owned()),
        ])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let cluster_ip = list(spec, "/clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
        Some(vec![
            table::name(object),
            text(spec, "/type").into(),
            if cluster_ip.is_empty() { table::NONE.into() } else { cluster_ip.into() },
            external_cell(object).into(),
            ports_cell(spec).into(),
            table::age(object, now_unix_seconds),
            table::label_text(spec.get("selector")).into(),
        ])
    }
}

fn default_spec(spec: &mut Value) {
    default_zero(spec, "sessionAffinity", "None");
    match text(spec, "/sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP"
            if spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").is_none_or(Value::is_null) =>
        {
            // Three hours. Source: DefaultClientIPServiceAffinitySeconds.
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
        _ => {}
    }
    default_zero(spec, "type", "ClusterIP");
    each(spec, "ports", |port| {
        default_zero(port, "protocol", "TCP");
        let number = integer(port, "/port");
        default_zero(port, "targetPort", number);
        if integer(port, "/nodePort") == 0 {
            remove(port, "nodePort");
        }
    });
    if is_externally_accessible(spec) {
        default_zero(spec, "externalTrafficPolicy", "Cluster");
    } else if text(spec, "/externalTrafficPolicy").is_empty() {
        remove(spec, "externalTrafficPolicy");
    }
    let kind = text(spec, "/type").to_owned();
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default_value(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_value(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether a Service can be reached from outside the cluster.
fn is_externally_accessible(spec: &Value) -> bool {
    match text(spec, "/type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "/externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a Service has no IP of its own by wish.
pub(crate) fn is_headless(spec: &Value) -> bool {
    matches!(list(spec, "/clusterIPs"), [only] if only == HEADLESS)
}

/// Whether a Service is of a type that has an IP.
fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "/type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether a Service's ports get ports of the nodes.
fn needs_node_ports(spec: &Value) -> bool {
    match text(spec, "/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            spec.get("allocateLoadBalancerNodePorts").is_none_or(Value::is_null)
                || flag(spec, "/allocateLoadBalancerNodePorts")
        }
        _ => false,
    }
}

/// Whether load balancers ask nodes if they have endpoints.
fn needs_health_check(spec: &Value) -> bool {
    text(spec, "/type") == "LoadBalancer" && text(spec, "/externalTrafficPolicy") == "Local"
}

fn external_cell(object: &Value) -> String {
    let external: Vec<&str> = list(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    let or = |values: &[&str], otherwise: &str| {
        if values.is_empty() { otherwise.to_owned() } else { values.join(",") }
    };
    match text(object, "/spec/type") {
        "ClusterIP" | "NodePort" => or(&external, table::NONE),
        "LoadBalancer" => {
            let mut ingress: Vec<&str> = list(object, "/status/loadBalancer/ingress")
                .iter()
                .map(|ingress| {
                    if text(ingress, "/ip").is_empty() {
                        text(ingress, "/hostname")
                    } else {
                        text(ingress, "/ip")
                    }
                })
                .collect();
            ingress.sort_unstable();
            ingress.dedup();
            ingress.extend(external);
            or(&ingress, "<pending>")
        }
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports_cell(spec: &Value) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (integer(port, "/port"), text(port, "/protocol"));
        match integer(port, "/nodePort") {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    };
    let ports: Vec<String> = list(spec, "/ports").iter().map(port).collect();
    if ports.is_empty() { table::NONE.to_owned() } else { ports.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::NOW;

    #[test]
    fn a_service_is_completed_by_its_type() {
        let mut service =
            json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        ServiceStrategy.default(&mut service);
        assert_eq!(
            service["spec"],
            json!({"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}], "selector": {"a": "b"}, "type": "ClusterIP",
                "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
        );
        let mut named = json!({"spec": {"type": "ExternalName", "externalName": "db.example.org"}});
        ServiceStrategy.default(&mut named);
        assert_eq!(
            named["spec"],
            json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "db.example.org"})
        );
    }

    #[test]
    fn the_row_tells_type_addresses_and_ports() {
        let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-02T03:03:05Z"}, "spec": {
            "type": "NodePort", "clusterIPs": ["10.96.0.9"], "externalIPs": ["192.0.2.7"], "selector": {"q": "r"},
            "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "nodePort": 30002, "protocol": "UDP"}]}});
        let cells = ServiceStrategy.table_cells(&service, NOW).unwrap();
        assert_eq!(
            Value::from(cells),
            json!(["s", "NodePort", "10.96.0.9", "192.0.2.7", "80:30001/TCP,53:30002/UDP", "60s", "q=r"])
        );
    }
}

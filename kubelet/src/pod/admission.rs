//! The node's own check of a pod that was bound to it. The scheduler's view may have been old; static pods have no
//! scheduler.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
};

use super::resources::{Amounts, pod_requests};

/// What the node has.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// What pods may use.
    pub allocatable: Amounts,
}

/// A refusal: reason and message of the Failed pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `OutOfcpu`, `NodeAffinity`, ...
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, message: &str) -> Self {
        Self { reason: reason.into(), message: format!("Pod was rejected: {message}") }
    }
}

/// What the pods on the node use together. Kept up to date, so that checking a pod does not look at all others.
#[derive(Debug, Default)]
pub struct NodeLoad {
    pods: HashMap<String, (Amounts, Vec<HostPort>)>,
    used: Amounts,
    ports: BTreeMap<HostPort, usize>,
}

impl NodeLoad {
    /// Counts a pod.
    pub fn add(&mut self, uid: &str, pod: &Pod) {
        self.remove(uid);
        let Some(spec) = &pod.spec else { return };
        let mut amounts = pod_requests(spec);
        amounts.insert("pods".to_owned(), 1);
        for (name, amount) in &amounts {
            let used = self.used.entry(name.clone()).or_default();
            *used = used.saturating_add(*amount);
        }
        let ports = host_ports(spec);
        for port in &ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(uid.to_owned(), (amounts, ports));
    }

    /// Counts a pod no longer.
    pub fn remove(&mut self, uid: &str) {
        let Some((amounts, ports)) = self.pods.remove(uid) else { return };
        for (name, amount) in amounts {
            if let Some(used) = self.used.get_mut(&name) {
                *used -= amount;
            }
        }
        for port in ports {
            if let Some(count) = self.ports.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(&port);
                }
            }
        }
    }
}

/// Whether the node takes a pod beside the `load` that it has.
pub fn admit(node: &NodeView, load: &NodeLoad, pod: &Pod) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if !matches_node(node, spec) {
        return Err(Refusal::new(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    if host_ports(spec).iter().any(|wanted| load.ports.keys().any(|taken| is_same_port(wanted, taken))) {
        return Err(Refusal::new(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
    }
    if node.taints.iter().any(|taint| taint.effect == "NoExecute" && !is_tolerated(spec, taint)) {
        return Err(Refusal::new(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had untolerated taint(s)",
        ));
    }
    let mut wanted = pod_requests(spec);
    wanted.insert("pods".to_owned(), 1);
    for (name, requested) in wanted {
        let used = load.used.get(&name).copied().unwrap_or(0);
        let capacity = node.allocatable.get(&name).copied().unwrap_or(0);
        if requested > 0 && used.saturating_add(requested) > capacity {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(Refusal::new(format!("OutOf{name}"), &message));
        }
    }
    Ok(())
}

type HostPort = (String, String, i32);

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| super::observed::is_sidecar(c));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address =
                port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), address, number))
        })
        .collect()
}

fn is_same_port(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == "0.0.0.0" || b.1 == "0.0.0.0")
}

fn is_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|t| {
        let same_effect =
            t.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
        let key = t.key.as_deref().unwrap_or_default();
        let same_key = key.is_empty() || key == taint.key;
        let same_value = match t.operator.as_deref() {
            Some("Exists") => true,
            _ => {
                !key.is_empty()
                    && t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
        };
        same_effect && same_key && same_value
    })
}

fn matches_node(node: &NodeView, spec: &PodSpec) -> bool {
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| matches_selector(node, selector))
}

fn matches_selector(node: &NodeView, selector: &NodeSelector) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(node, term))
}

fn matches_term(node: &NodeView, term: &NodeSelectorTerm) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| matches_requirement(node.labels.get(&r.key).map(String::as_str), r))
        && fields.iter().all(|r| r.key == "metadata.name" && matches_requirement(Some(&node.name), r))
}

fn matches_requirement(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let contains = value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let compared = || Some((number(value)?, number(values.first().map(String::as_str))?));
    match requirement.operator.as_str() {
        "In" => contains,
        "NotIn" => !contains,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(a, b)| a > b),
        "Lt" => compared().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_kubernetes_words() {
        let node = NodeView {
            name: "n".into(),
            labels: [("disk".to_owned(), "ssd".to_owned()), ("gen".to_owned(), "7".to_owned())].into(),
            taints: vec![Taint { key: "t".into(), effect: "NoExecute".into(), ..Taint::default() }],
            allocatable: [("cpu".to_owned(), 2000), ("memory".to_owned(), 1 << 30), ("pods".to_owned(), 2)]
                .into(),
        };
        let tolerations = json!([{"key": "t", "operator": "Exists"}]);
        let other =
            pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]}));
        let terms = |requirement: Value| {
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}})
        };
        let load = |pods: &[&Pod]| {
            let mut load = NodeLoad::default();
            for (index, pod) in pods.iter().enumerate() {
                load.add(&index.to_string(), pod);
            }
            load
        };
        for (spec, reason) in [
            (json!({"containers": [{"name": "a"}]}), None),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "600m"}}}]}),
                Some("OutOfcpu"),
            ),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "2Gi"}}}]}),
                Some("OutOfmemory"),
            ),
            (json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), Some("NodeAffinity")),
            (json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), None),
            (
                json!({"containers": [], "affinity": terms(json!({"key": "gen", "operator": "Gt", "values": ["6"]}))}),
                None,
            ),
            (
                json!({"containers": [], "affinity": terms(json!({"key": "gen", "operator": "In", "values": ["6"]}))}),
                Some("NodeAffinity"),
            ),
            (
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
                Some("NodePorts"),
            ),
        ] {
            let mut spec = spec;
            spec["tolerations"] = tolerations.clone();
            let refusal = admit(&node, &load(&[&other]), &pod(spec.clone())).err();
            assert_eq!(refusal.map(|r| r.reason).as_deref(), reason, "{spec}");
        }
        let refusal = admit(&node, &load(&[&other]), &pod(json!({"containers": []}))).unwrap_err();
        assert_eq!(refusal.reason, "TaintToleration");
        let tolerant = pod(json!({"containers": [], "tolerations": tolerations}));
        let mut full = load(&[&tolerant, &tolerant]);
        let refusal = admit(&node, &full, &tolerant).unwrap_err();
        assert_eq!(
            refusal.message,
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
        full.remove("0");
        assert_eq!(admit(&node, &full, &tolerant), Ok(()));
    }
}

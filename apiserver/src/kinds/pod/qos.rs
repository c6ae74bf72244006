//! The quality-of-service class of a pod. Source: `k8s.io/kubernetes/pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use serde_json::Value;
use wherry_machinery::quantity::Quantity;

use super::resources::parsed;
use crate::kinds::json::list;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(spec: &Value) -> &'static str {
    let pod_level =
        spec.get("resources").filter(|r| r.pointer("/requests").is_some() || r.pointer("/limits").is_some());
    let holders: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => ["/containers", "/initContainers"]
            .iter()
            .flat_map(|pointer| list(spec, pointer))
            .map(|container| container.get("resources").unwrap_or(&Value::Null))
            .collect(),
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    for resources in holders {
        add(&mut requests, resources.get("requests"));
        let limited = add(&mut limits, resources.get("limits"));
        guaranteed &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.iter().all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && equal && requests.len() == limits.len() { "Guaranteed" } else { "Burstable" }
}

/// Add up CPU and memory; how many of them were given.
fn add(sums: &mut BTreeMap<&'static str, Quantity>, amounts: Option<&Value>) -> usize {
    let mut given = 0;
    for name in ["cpu", "memory"] {
        let amount = amounts.and_then(|amounts| amounts.get(name)).and_then(Value::as_str).map(parsed);
        if let Some(amount) = amount.filter(|amount| *amount > Quantity::zero()) {
            given += 1;
            let sum = sums.entry(name).or_insert_with(Quantity::zero);
            *sum = sum.saturating_add(&amount);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let table = [
            (json!({"containers": [{}]}), "BestEffort"),
            (json!({"containers": [{"resources": {"limits": full, "requests": full}}]}), "Guaranteed"),
            (json!({"containers": [{"resources": {"limits": full, "requests": full}}, {}]}), "Burstable"),
            (
                json!({"containers": [{"resources": {"limits": full, "requests": {"cpu": "500m", "memory": "1Gi"}}}]}),
                "Burstable",
            ),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}), "Burstable"),
        ];
        for (spec, expected) in table {
            assert_eq!(class(&spec), expected, "{spec}");
        }
    }
}

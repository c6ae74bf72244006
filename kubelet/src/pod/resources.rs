//! Requests and limits of pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wherry_machinery::quantity::Quantity;

use super::observed::is_sidecar;

/// Amounts by resource name: thousandths for `cpu`, whole units for all others.
pub type Amounts = BTreeMap<String, i64>;

/// Reads amounts; what does not parse counts as absent (the API server has refused it before).
pub fn amounts(quantities: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    quantities
        .into_iter()
        .flatten()
        .filter_map(|(name, quantity)| Some((name.clone(), amount(name, quantity)?)))
        .collect()
}

/// Reads one amount.
pub fn amount(name: &str, quantity: &ApiQuantity) -> Option<i64> {
    let quantity: Quantity = quantity.0.parse().ok()?;
    Some(if name == "cpu" { quantity.milli_value() } else { quantity.value() })
}

fn add(into: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        let sum = into.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(into: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let most = into.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

fn requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let mut requests = amounts(resources.and_then(|r| r.limits.as_ref()));
    requests.extend(amounts(resources.and_then(|r| r.requests.as_ref())));
    requests
}

/// What a pod needs at once: the containers together, or the largest init container beside the sidecars started
/// before it, whichever is more; plus the overhead.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &requests(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    raise(&mut total, &peak);
    if let Some(pod_level) = spec.resources.as_ref() {
        total.extend(amounts(pod_level.requests.as_ref()));
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// The quality of service class: `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let is_set = |quantities: Option<&BTreeMap<String, ApiQuantity>>, name: &str| {
        quantities.and_then(|q| q.get(name)).and_then(|q| amount(name, q)).filter(|amount| *amount > 0)
    };
    let requirements: Vec<Option<&ResourceRequirements>> = match spec.resources.as_ref() {
        Some(pod_level) => vec![Some(pod_level)],
        None => containers.iter().map(|c| c.resources.as_ref()).collect(),
    };
    let mut is_guaranteed = true;
    let mut is_best_effort = true;
    for resources in requirements {
        let limits = resources.and_then(|r| r.limits.as_ref());
        let wanted = resources.and_then(|r| r.requests.as_ref());
        for name in ["cpu", "memory"] {
            let (limit, request) = (is_set(limits, name), is_set(wanted, name));
            is_best_effort &= limit.is_none() && request.is_none();
            is_guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (is_best_effort, is_guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let both = serde_json::json!({"cpu": "1", "memory": "1Gi"});
        for (resources, class) in [
            (serde_json::json!({}), "BestEffort"),
            (serde_json::json!({"limits": both}), "Guaranteed"),
            (serde_json::json!({"limits": both, "requests": both}), "Guaranteed"),
            (serde_json::json!({"limits": both, "requests": {"cpu": "500m"}}), "Burstable"),
            (serde_json::json!({"limits": {"cpu": "1"}}), "Burstable"),
            (serde_json::json!({"requests": {"memory": "1Mi"}}), "Burstable"),
        ] {
            let spec = spec(serde_json::json!({"containers": [{"name": "a", "resources": resources}]}));
            assert_eq!(qos_class(&spec), class, "{resources}");
        }
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let spec = spec(serde_json::json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "big", "resources": {"requests": {"cpu": "2"}}},
            ],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "10Mi"}}}],
            "overhead": {"cpu": "10m"},
        }));
        let requests = pod_requests(&spec);
        assert_eq!(requests["cpu"], 2110);
        assert_eq!(requests["memory"], 10 << 20);
    }
}

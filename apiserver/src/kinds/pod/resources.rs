//! Amounts of resources: what containers and pods request and may use.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Map, Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;
use wherry_machinery::quantity::{Format, Quantity};

use crate::kinds::fields::{NEGATIVE, dns_label, invalid_each};
use crate::kinds::json::{list, map_at, set, text, within};

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, Amount>;

const HUGE_PAGES: &str = "hugepages-";

// --- canonical form -------------------------------------------------------------------------------------------------

/// An amount as it is stored: in canonical form, rounded up to thousandths.
fn canonical(value: &Value) -> Option<String> {
    let quantity: Quantity = match value {
        Value::String(text) => text.parse().ok()?,
        Value::Number(number) => number.to_string().parse().ok()?,
        _ => return None,
    };
    let rounded = Quantity::from_milli(quantity.milli_value());
    let is_exact = quantity.milli_value() == i64::MAX || rounded == quantity;
    Some(if is_exact { quantity.to_string() } else { rounded.to_string() })
}

/// Bring every amount of a map into canonical form.
pub(crate) fn canonicalize_list(amounts: &mut Value) {
    for amount in amounts.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(text) = canonical(amount) {
            *amount = text.into();
        }
    }
}

/// Bring one amount into canonical form.
pub(crate) fn canonicalize_field(object: &mut Value, field: &str) {
    if let Some(text) = object.get(field).and_then(canonical) {
        set(object, field, text);
    }
}

/// Bring limits and requests into canonical form.
pub(crate) fn canonicalize(resources: &mut Value) {
    for field in ["limits", "requests"] {
        within(resources, field, canonicalize_list);
    }
}

// --- defaults -------------------------------------------------------------------------------------------------------

/// What is limited and not requested is requested up to the limit.
pub(crate) fn default_requests_to_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = map_at(resources, "requests").and_then(Value::as_object_mut) {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// Requests of the whole pod follow from its containers' requests or its own limits; limits of the whole pod follow from
/// its containers' limits where every container has one.
pub(crate) fn default_pod_level(spec: &mut Value) {
    let Some(resources) = spec.get("resources").filter(|resources| resources.is_object()) else { return };
    let amounts = |field: &str| resources.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut limits, mut requests) = (amounts("limits"), amounts("requests"));
    let containers = list(spec, "/containers");
    if !requests.is_empty() {
        for name in ["cpu", "memory"] {
            let container_limits: Vec<Quantity> =
                containers.iter().filter_map(|c| amount_at(c, "limits", name)).collect();
            if !limits.contains_key(name) && container_limits.len() == containers.len() {
                let sum =
                    container_limits.iter().fold(Quantity::zero(), |sum, limit| sum.saturating_add(limit));
                limits.insert(name.to_owned(), sum.to_string().into());
            }
        }
    }
    if !limits.is_empty() {
        for (name, amount) in aggregate_requests(spec) {
            if is_pod_level(&name) && is_overcommit_allowed(&name) {
                requests.entry(name).or_insert_with(|| amount.to_string().into());
            }
        }
        for (name, limit) in &limits {
            if is_pod_level(name) {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
    }
    within(spec, "resources", |resources| {
        for (field, amounts) in [("limits", limits), ("requests", requests)] {
            if !amounts.is_empty() {
                set(resources, field, Value::Object(amounts));
            }
        }
    });
}

fn amount_at(container: &Value, field: &str, name: &str) -> Option<Quantity> {
    container.get("resources")?.get(field)?.get(name)?.as_str()?.parse().ok()
}

/// What a pod needs at its busiest: the sum over its containers, or its largest init container, sidecars on top.
fn aggregate_requests(spec: &Value) -> BTreeMap<String, Quantity> {
    let requests = |container: &Value| -> BTreeMap<String, Quantity> {
        let amounts = container.pointer("/resources/requests").and_then(Value::as_object);
        let parse = |(name, amount): (&String, &Value)| Some((name.clone(), amount.as_str()?.parse().ok()?));
        amounts.into_iter().flatten().filter_map(parse).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            let entry = sum.entry(name.clone()).or_insert_with(Quantity::zero);
            *entry = entry.saturating_add(amount);
        }
    };
    let mut running = BTreeMap::new();
    for container in list(spec, "/containers") {
        add(&mut running, &requests(container));
    }
    let (mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in list(spec, "/initContainers") {
        let mut needed = requests(container);
        if text(container, "/restartPolicy") == "Always" {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            needed.clone_from(&sidecars);
        } else {
            add(&mut needed, &sidecars);
        }
        for (name, amount) in needed {
            let largest = starting.entry(name).or_insert_with(Quantity::zero);
            if amount > *largest {
                *largest = amount;
            }
        }
    }
    for (name, amount) in starting {
        let largest = running.entry(name).or_insert_with(Quantity::zero);
        if amount > *largest {
            *largest = amount;
        }
    }
    running
}

// --- names ----------------------------------------------------------------------------------------------------------

/// A resource of Kubernetes itself.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

fn is_standard(name: &str) -> bool {
    is_standard_for_containers(name)
        || name.starts_with("requests.hugepages-")
        || is_counted(name)
        || matches!(
            name,
            "requests.cpu"
                | "requests.memory"
                | "requests.ephemeral-storage"
                | "limits.cpu"
                | "limits.memory"
                | "limits.ephemeral-storage"
                | "storage"
                | "requests.storage"
        )
}

fn is_standard_for_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

fn is_counted(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    )
}

fn resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = invalid_each(path, name, names::qualified_name(name));
    if errors.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
    errors
}

fn container_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if !name.contains('/') {
        if !is_standard_for_containers(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
    errors
}

fn pod_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if errors.is_empty() && !is_pod_level(name) {
        errors.push(Error::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
    errors
}

// --- amounts --------------------------------------------------------------------------------------------------------

/// An amount that is not negative, and whole where the resource is counted.
pub(crate) fn quantity_value(resource: &str, amount: &str, path: &Path) -> ErrorList {
    let quantity = parsed(amount);
    let mut errors = ErrorList::new();
    if quantity.is_negative() {
        errors.push(Error::invalid(path, quantity.to_string(), NEGATIVE));
    }
    if (is_counted(resource) || is_extended(resource)) && quantity.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path, quantity.to_string(), "must be an integer"));
    }
    errors
}

/// An amount; decoding refused what is none.
pub(crate) fn parsed(amount: &str) -> Quantity {
    amount.parse().unwrap_or_default()
}

fn huge_page_value(name: &str, quantity: &Quantity, path: &Path) -> Option<Error> {
    let page_size: Quantity = name.strip_prefix(HUGE_PAGES)?.parse().ok()?;
    let is_divisible = page_size.value() > 0 && quantity.value() % page_size.value() == 0;
    let detail = format!("{quantity} is not positive integer multiple of {name}");
    (!is_divisible).then(|| Error::invalid(path, quantity.to_string(), &detail))
}

/// Which names a set of requirements may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Those of a container.
    Container,
    /// Those of a whole pod.
    Pod,
}

/// The claims that containers may name.
pub(crate) type ClaimNames = BTreeSet<String>;

/// Limits and requests.
pub(crate) fn requirements(
    resources: &ResourceRequirements,
    level: Level,
    claims: &ClaimNames,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let check_name = match level {
        Level::Container => container_resource_name,
        Level::Pod => pod_resource_name,
    };
    let (limit_path, request_path) = (path.child("limits"), path.child("requests"));
    let nothing = Amounts::new();
    let limits = resources.limits.as_ref().unwrap_or(&nothing);
    let requests = resources.requests.as_ref().unwrap_or(&nothing);
    for (name, amount) in limits {
        let path = limit_path.key(name);
        errors.extend(check_name(name, &path));
        errors.extend(quantity_value(name, &amount.0, &path));
        errors.extend(huge_page_value(name, &parsed(&amount.0), &path));
    }
    for (name, amount) in requests {
        let path = request_path.key(name);
        let quantity = parsed(&amount.0);
        errors.extend(check_name(name, &path));
        errors.extend(quantity_value(name, &amount.0, &path));
        if let Some(limit) = limits.get(name).map(|limit| parsed(&limit.0)) {
            let detail = if quantity != limit && !is_overcommit_allowed(name) {
                Some("must be equal to")
            } else {
                (quantity > limit).then_some("must be less than or equal to")
            };
            if let Some(detail) = detail {
                let detail = format!("{detail} {name} limit of {limit}");
                errors.push(Error::invalid(&request_path, quantity.to_string(), &detail));
            }
        } else if !is_overcommit_allowed(name) {
            errors.push(Error::required(&limit_path, "Limit must be set for non overcommitable resources"));
        }
        errors.extend(huge_page_value(name, &quantity, &path));
    }
    let any = |wanted: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| wanted(name));
    if any(is_huge_pages) && !any(|name| matches!(name, "cpu" | "memory")) {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
    errors.extend(claim_names(
        resources.claims.as_deref().unwrap_or_default(),
        claims,
        &path.child("claims"),
    ));
    errors
}

fn claim_names(claims: &[ResourceClaim], pod_claims: &ClaimNames, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::<String>::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        if claim.name.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let request = claim.request.as_deref().unwrap_or_default();
        if seen.contains(&claim.name) {
            errors.push(Error::duplicate(&path, claim.name.as_str()));
        } else {
            let mut key = claim.name.clone();
            if !request.is_empty() {
                errors.extend(dns_label(request, &path.child("request")));
                key = format!("{key}/{request}");
            }
            let prefix = format!("{}/", claim.name);
            if seen.contains(&key)
                || (request.is_empty() && seen.iter().any(|other| other.starts_with(&prefix)))
            {
                errors.push(Error::duplicate(&path, key.as_str()));
            }
            seen.insert(key);
        }
        if !pod_claims.contains(&claim.name) {
            let mut error = Error::not_found(&path, claim.name.as_str());
            error.body.push_str(": must be one of the names in pod.spec.resourceClaims");
            if pod_claims.is_empty() {
                error.body.push_str(" which is empty");
            } else {
                let names = pod_claims.iter().cloned().collect::<Vec<_>>().join(", ");
                error.body.push_str(&format!(": {names}"));
            }
            errors.push(error);
        }
    }
    errors
}

/// The overhead of a pod's runtime.
pub(crate) fn overhead(overhead: &Amounts, path: &Path) -> ErrorList {
    let limits = ResourceRequirements { limits: Some(overhead.clone()), ..ResourceRequirements::default() };
    requirements(&limits, Level::Container, &ClaimNames::new(), path)
}

/// Requirements of the whole pod, against those of its containers.
pub(crate) fn pod_level(spec: &PodSpec, claims: &ClaimNames, path: &Path) -> ErrorList {
    let Some(resources) = &spec.resources else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if resources.claims.is_some() {
        errors
            .push(Error::forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    errors.extend(requirements(resources, Level::Pod, claims, path));
    let nothing = Amounts::new();
    let requests = resources.requests.as_ref().unwrap_or(&nothing);
    let containers = json!({"containers": spec.containers, "initContainers": spec.init_containers});
    for (name, needed) in aggregate_requests(&containers) {
        let requested = requests.get(&name).map_or_else(Quantity::zero, |amount| parsed(&amount.0));
        if is_pod_level(&name) && needed > requested {
            let detail = format!("must be greater than or equal to aggregate container requests of {needed}");
            errors.push(Error::invalid(&path.child("requests").key(&name), requested.to_string(), &detail));
        }
    }
    let pod_limits = resources.limits.as_ref().unwrap_or(&nothing);
    for (i, container) in spec.containers.iter().enumerate() {
        for (name, limit) in limits_of(container) {
            let limit = parsed(&limit.0);
            let Some(pod_limit) = pod_limits.get(name).map(|amount| parsed(&amount.0)) else { continue };
            if limit > pod_limit {
                let path = path.child("containers").index(i).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {pod_limit}");
                errors.push(Error::invalid(&path, limit.to_string(), &detail));
            }
        }
    }
    errors
}

fn limits_of(container: &Container) -> impl Iterator<Item = (&String, &Amount)> {
    container.resources.iter().filter_map(|resources| resources.limits.as_ref()).flatten()
}

/// The divisor of a resource reference must be one of the usual units.
pub(crate) fn divisor(resource: &str, divisor: Option<&Amount>, path: &Path) -> ErrorList {
    const BYTES: &[&str] =
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let quantity =
        divisor.map_or_else(|| Quantity::from_value(0, Format::DecimalSi), |amount| parsed(&amount.0));
    if quantity.is_zero() {
        return ErrorList::new();
    }
    let kind = match resource {
        "limits.cpu" | "requests.cpu" => "cpu",
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-") => {
            "hugepages"
        }
        _ => return ErrorList::new(),
    };
    let units: &[&str] = if kind == "cpu" { &["1m", "1"] } else { BYTES };
    if units.contains(&quantity.to_string().as_str()) {
        return ErrorList::new();
    }
    let listed = if kind == "cpu" { "1m and 1".to_owned() } else { BYTES.join(", ") };
    let detail = format!("only divisor's values {listed} are supported with the {kind} resource");
    vec![Error::invalid(&path.child("divisor"), resource, &detail)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn amounts_come_back_in_canonical_form() {
        let mut resources = json!({"limits": {"cpu": "0.5", "memory": "1024Ki", "x": 1_073_741_824}});
        canonicalize(&mut resources);
        assert_eq!(resources, json!({"limits": {"cpu": "500m", "memory": "1Mi", "x": "1073741824"}}));
    }

    #[test]
    fn limits_fill_in_requests() {
        let mut resources = json!({"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "100m"}});
        default_requests_to_limits(&mut resources);
        assert_eq!(resources["requests"], json!({"cpu": "100m", "memory": "1Mi"}));
    }

    #[test]
    fn requests_may_not_exceed_limits_nor_name_unknown_resources() {
        let table = [
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                vec![
                    r#"resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
                ],
            ),
            (
                json!({"limits": {"example.org/gpu": "1"}, "requests": {"example.org/gpu": "2"}}),
                vec![
                    r#"resources.requests: Invalid value: "2": must be equal to example.org/gpu limit of 1"#,
                ],
            ),
            (
                json!({"requests": {"example.org/gpu": "2"}}),
                vec!["resources.limits: Required value: Limit must be set for non overcommitable resources"],
            ),
            (
                json!({"limits": {"storage": "1"}}),
                vec![
                    r#"resources.limits[storage]: Invalid value: "storage": must be a standard resource for containers"#,
                ],
            ),
            (
                json!({"limits": {"memory": "-1"}}),
                vec![r#"resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
            (
                json!({"limits": {"hugepages-2Mi": "2Mi"}}),
                vec!["resources: Forbidden: HugePages require cpu or memory"],
            ),
        ];
        for (resources, expected) in table {
            let resources = serde_json::from_value(resources).unwrap();
            let errors =
                requirements(&resources, Level::Container, &ClaimNames::new(), &Path::new("resources"));
            assert_eq!(messages(&errors), expected);
        }
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container_beside_sidecars() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "500m"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"requests": {"cpu": "3"}}},
            ],
        });
        assert_eq!(aggregate_requests(&spec)["cpu"].to_string(), "3100m");
    }
}

//! ResourceQuota and LimitRange: what a namespace may use.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRangeItem, LimitRangeSpec, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Quantities;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::quantity::Quantity;

use super::fields::{immutable, invalid_each, qualified_name};
use super::json::{each, text, typed};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `resourcequotas`.
pub(crate) struct ResourceQuotaStrategy;

/// `limitranges`.
pub(crate) struct LimitRangeStrategy;

/// What a quota can be restricted to.
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Resources of a quota that need no domain before them.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "services.nodeports",
    "services.loadbalancers",
];

type Amounts = BTreeMap<String, Quantities>;

impl Strategy for ResourceQuotaStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "resourcequotas",
            kind: "ResourceQuota",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: ResourceQuotaSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = amounts(spec.hard.as_ref(), &path.child("hard"));
        for scope in spec.scopes.iter().flatten() {
            if !SCOPES.contains(&scope.as_str()) {
                let path = path.child("scopes");
                errors.push(Error::invalid(&path, json!(spec.scopes), "unsupported scope"));
            }
        }
        for (index, term) in spec
            .scope_selector
            .iter()
            .flat_map(|selector| selector.match_expressions.iter().flatten())
            .enumerate()
        {
            let path = path.child("scopeSelector").child("matchExpressions");
            if !SCOPES.contains(&term.scope_name.as_str()) {
                let path = path.child("scopeName");
                errors.push(Error::invalid(&path, term.scope_name.as_str(), "unsupported scope"));
            }
            let values = term.values.as_deref().unwrap_or_default();
            match term.operator.as_str() {
                "In" | "NotIn" if values.is_empty() => {
                    let detail =
                        "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                    errors.push(Error::required(&path.index(index).child("values"), detail));
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let detail =
                        "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                    errors.push(Error::invalid(&path.index(index).child("values"), values.to_vec(), detail));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => {
                    let detail = "not a valid selector operator";
                    errors.push(Error::invalid(&path.child("operator"), other, detail));
                }
            }
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            let mut errors = ErrorList::new();
            for field in ["hard", "used"] {
                let found = object["status"][field].clone();
                let found: Option<Amounts> = serde_json::from_value(found).unwrap_or_default();
                errors.extend(amounts(found.as_ref(), &Path::new("status").child(field)));
            }
            return errors;
        }
        let mut errors = self.validate(facts, object);
        let path = Path::new("spec").child("scopes");
        errors.extend(immutable(object["spec"].get("scopes"), old["spec"].get("scopes"), &path));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in object.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten() {
            let used = object["status"]["used"][name].as_str().unwrap_or("0");
            let cell = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
            if name.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
        }
        Some(vec![
            table::name(object),
            requests.join(", ").into(),
            limits.join(", ").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}

/// Names of resources and amounts that are not negative.
fn amounts(found: Option<&Amounts>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (name, amount) in found.into_iter().flatten() {
        let path = path.key(name);
        errors.extend(qualified_name(name, &path));
        if !name.contains('/') && !STANDARD.contains(&name.as_str()) && !is_counted(name) {
            errors.extend(invalid_each(
                &path,
                name,
                vec!["must be a standard resource type or fully qualified".to_owned()],
            ));
        }
        let Ok(amount) = amount.0.parse::<Quantity>() else { continue };
        if amount.is_negative() {
            errors.push(Error::invalid(&path, amount.to_string(), "must be greater than or equal to 0"));
        }
        let is_count =
            !name.contains('/') && !["cpu", "memory", "storage"].iter().any(|part| name.contains(part));
        if is_count && amount.milli_value() % 1000 != 0 {
            errors.push(Error::invalid(&path, amount.to_string(), "must be an integer"));
        }
    }
    errors
}

fn is_counted(name: &str) -> bool {
    name.starts_with("count/")
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.contains(".storageclass.storage.k8s.io/")
}

impl Strategy for LimitRangeStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "limitranges",
            kind: "LimitRange",
            scope: Scope::Namespaced,
        }
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        each(spec, "limits", |limit| {
            if text(limit, "/type") != "Container" {
                return;
            }
            // A default limit is the maximum; a default request the default limit, or the minimum.
            fill(limit, "default", "max");
            fill(limit, "defaultRequest", "default");
            fill(limit, "defaultRequest", "min");
        });
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: LimitRangeSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = ErrorList::new();
        let mut seen: Vec<&str> = Vec::new();
        for (index, limit) in spec.limits.iter().enumerate() {
            let path = path.child("limits").index(index);
            if seen.contains(&limit.type_.as_str()) {
                errors.push(Error::duplicate(&path.child("type"), limit.type_.as_str()));
            }
            seen.push(&limit.type_);
            errors.extend(validate_limit(limit, &path));
        }
        errors
    }

    fn table_cells(&self, object: &Value, _now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![table::name(object), text(object, "/metadata/creationTimestamp").into()])
    }
}

fn fill(limit: &mut Value, field: &str, from: &str) {
    let Some(source) = limit[from].as_object().cloned() else { return };
    if !limit[field].is_object() {
        limit[field] = json!({});
    }
    for (name, amount) in source {
        if limit[field][&name].is_null() {
            limit[field][&name] = amount;
        }
    }
}

fn validate_limit(limit: &LimitRangeItem, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = limit.type_.as_str();
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), ""));
    } else {
        errors.extend(qualified_name(kind, &path.child("type")));
    }
    if kind == "Pod" {
        for (name, found) in [("default", &limit.default), ("defaultRequest", &limit.default_request)] {
            if found.as_ref().is_some_and(|found| !found.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(Error::forbidden(&path.child(name), detail));
            }
        }
    }
    if kind == "PersistentVolumeClaim" {
        let has = |found: &Option<Amounts>| found.as_ref().is_some_and(|found| found.contains_key("storage"));
        if !has(&limit.min) && !has(&limit.max) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(Error::required(path, detail));
        }
    }
    let of = |found: &Option<Amounts>, name: &str| -> Option<Quantity> {
        found.as_ref()?.get(name)?.0.parse().ok()
    };
    let all =
        [&limit.min, &limit.max, &limit.default, &limit.default_request, &limit.max_limit_request_ratio];
    let names: std::collections::BTreeSet<&String> =
        all.into_iter().flat_map(|found| found.iter().flat_map(BTreeMap::keys)).collect();
    for name in names {
        let (min, max) = (of(&limit.min, name), of(&limit.max, name));
        let (default, request) = (of(&limit.default, name), of(&limit.default_request, name));
        let mut ordered = |low: (&Option<Quantity>, &str), high: (&Option<Quantity>, &str), at: &str| {
            if let (Some(a), Some(b)) = (low.0, high.0)
                && a > b
            {
                let value = if at == low.1 { a } else { b };
                let detail =
                    format!("{} value {a} is greater than {} value {b}", words(low.1), words(high.1));
                errors.push(Error::invalid(&path.child(at).key(name), value.to_string(), &detail));
            }
        };
        ordered((&min, "min"), (&max, "max"), "min");
        ordered((&min, "min"), (&request, "defaultRequest"), "defaultRequest");
        ordered((&request, "defaultRequest"), (&max, "max"), "defaultRequest");
        ordered((&request, "defaultRequest"), (&default, "default"), "defaultRequest");
        ordered((&min, "min"), (&default, "default"), "default");
        ordered((&default, "default"), (&max, "max"), "default");
        if let Some(ratio) = of(&limit.max_limit_request_ratio, name)
            && ratio.milli_value() < 1000
        {
            let path = path.child("maxLimitRequestRatio").key(name);
            errors.push(Error::invalid(&path, ratio.to_string(), &format!("ratio {ratio} is less than 1")));
        }
    }
    errors
}

fn words(field: &str) -> &str {
    match field {
        "defaultRequest" => "default request",
        other => other,
    }
}

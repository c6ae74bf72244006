//! What kinds that make pods of a template share.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::selector::Selector;

use super::json::{integer, map_at};
use super::pod::{defaults, template, warnings};
use super::{fields, table};

/// Fill in a workload's template.
pub(crate) fn default_template(spec: &mut Value) {
    if let Some(template) = map_at(spec, "template") {
        map_at(template, "metadata");
        defaults::default_template(template);
    }
}

/// The selector of pods and the template of pods, which must fit.
pub(crate) fn selector_and_template(
    selector: Option<&LabelSelector>,
    pods: &PodTemplateSpec,
    owner: &str,
    path: &Path,
) -> ErrorList {
    let (mut errors, parsed) = selector_of_pods(selector, path);
    if let Some(parsed) = parsed {
        errors.extend(template::validate_selected(pods, &parsed, owner, &path.child("template")));
    }
    errors
}

/// The same for a kind whose pods are made of more than the template: only what does not depend on the rest is looked at.
pub(crate) fn selector_and_partial_template(
    selector: Option<&LabelSelector>,
    pods: &PodTemplateSpec,
    owner: &str,
    path: &Path,
) -> ErrorList {
    let (mut errors, parsed) = selector_of_pods(selector, path);
    if let Some(parsed) = parsed {
        errors.extend(template::validate_selected_partly(pods, &parsed, owner, &path.child("template")));
    }
    errors
}

fn selector_of_pods(selector: Option<&LabelSelector>, path: &Path) -> (ErrorList, Option<Selector>) {
    let mut errors = ErrorList::new();
    let selector_path = path.child("selector");
    match selector {
        None => errors.push(Error::required(&selector_path, "")),
        Some(selector) => {
            errors.extend(fields::label_selector(Some(selector), &selector_path));
            let labels = selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
            let expressions = selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
            if labels && expressions {
                // Kubernetes says so of both kinds.
                let detail = "empty selector is invalid for deployment";
                errors.push(Error::invalid(&selector_path, json!({}), detail));
            }
        }
    }
    let parsed = match selector {
        None => Ok(Selector::nothing()),
        Some(selector) => Selector::from_label_selector(&json!(selector)),
    };
    if parsed.is_err() {
        errors.push(Error::invalid(&selector_path, json!(selector), "invalid label selector"));
    }
    (errors, parsed.ok())
}

/// Numbers of a status: none negative, none above the number of replicas.
pub(crate) fn status_counts(object: &Value, counts: &[&str], bounded: &[&str]) -> ErrorList {
    let path = Path::new("status");
    let of = |field: &str| integer(object, &format!("/status/{field}"));
    let mut errors = ErrorList::new();
    for field in counts {
        errors.extend(fields::non_negative(of(field), &path.child(field)));
    }
    for field in bounded {
        if of(field) > of("replicas") {
            let detail = "cannot be greater than status.replicas";
            errors.push(Error::invalid(&path.child(field), of(field), detail));
        }
    }
    if of("availableReplicas") > of("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        errors.push(Error::invalid(&path.child("availableReplicas"), of("availableReplicas"), detail));
    }
    errors
}

/// Warnings about a workload: about its template when that is new or changed.
pub(crate) fn template_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let of = |object: &Value| object.pointer("/spec/template").cloned().unwrap_or(Value::Null);
    let own = of(object);
    if old.is_some_and(|old| of(old) == own) {
        return Vec::new();
    }
    warnings::of_template(&own, &Path::new("spec").child("template"))
}

/// The last cells of a workload's row: containers, images, selector.
pub(crate) fn template_cells(object: &Value) -> (Value, Value) {
    let (names, images) =
        table::container_cells(object.pointer("/spec/template/spec").unwrap_or(&Value::Null));
    (names.into(), images.into())
}

//! Subresources that are views of the object or acts upon it: status, scale, binding, eviction, finalize.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use wherry_machinery::field::{Error, Path};
use wherry_machinery::selector::Selector;
use wherry_machinery::status::Status;

use super::negotiate::{Shape, body_media_type, content_type};
use super::{Call, eviction, list, method_not_allowed, options, write};
use crate::kinds::Subresource;
use crate::registry::context::Context;
use crate::registry::strategy::{Resource, Scope};
use crate::registry::{Kind, ListVersion, Ownership, Refusal, Registry, Target, object};

const SCALE: Resource =
    Resource { group: "autoscaling", version: "v1", name: "scales", kind: "Scale", scope: Scope::Namespaced };
const BINDING: Resource =
    Resource { group: "", version: "v1", name: "bindings", kind: "Binding", scope: Scope::Namespaced };
pub(super) const EVICTION: Resource = Resource {
    group: "policy",
    version: "v1",
    name: "evictions",
    kind: "Eviction",
    scope: Scope::Namespaced,
};

/// Answers a request to a subresource.
pub(super) async fn answer(
    call: &mut Call,
    subresource: Subresource,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Refusal> {
    match (subresource, call.info.verb.clone().as_str()) {
        (Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize, "get") => {
            let names = (call.namespace().to_owned(), call.info.name.clone());
            list::get(&call.api, &call.kind, (&names.0, &names.1), call.form, &call.query).await
        }
        (
            Subresource::Status
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Finalize,
            "update",
        ) => write::put(call, headers, body, &write::Place::of(subresource)).await,
        (Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize, "patch") => {
            write::patch_at(call, headers, body, &write::Place::of(subresource)).await
        }
        (Subresource::Scale, "get") => {
            let object = current(call).await?;
            let scale = scale_of(&object)?;
            respond_scale(call, scale)
        }
        (Subresource::Scale, verb @ ("update" | "patch")) => {
            scale(call, verb == "patch", headers, body).await
        }
        (Subresource::Binding, "create") => {
            options::write_options(&call.query, "CreateOptions", &mut call.context)?;
            let binding = sent(call, &BINDING, headers, body)?;
            let (namespace, name) = (call.namespace().to_owned(), call.info.name.clone());
            bind(&call.api.registry, &call.kind, &call.context, (&namespace, &name), &binding).await?;
            Ok(write::done(call))
        }
        (Subresource::Eviction, "create") => eviction::evict(call, headers, body).await,
        _ => Err(method_not_allowed()),
    }
}

pub(super) fn sent(
    call: &Call,
    resource: &Resource,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, Refusal> {
    call.api.registry.codec().decode(resource, &call.context, body_media_type(headers)?, body)
}

async fn current(call: &Call) -> Result<Value, Refusal> {
    let registry = &call.api.registry;
    let entry = registry.get(&call.kind, call.namespace(), &call.info.name, ListVersion::Latest).await?;
    Ok(entry.value())
}

/// The `Scale` that shows an object.
fn scale_of(object: &Value) -> Result<Value, Refusal> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or_default()});
    let selector = &object["spec"]["selector"];
    if !selector.is_null() {
        // A ReplicationController's is a plain map of labels.
        let is_map = object["kind"] == "ReplicationController";
        let labels = if is_map { json!({"matchLabels": selector}) } else { selector.clone() };
        let parsed =
            Selector::from_label_selector(&labels).map_err(|error| Box::new(Status::internal(error)))?;
        status["selector"] = parsed.to_string().into();
    }
    Ok(
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}),
    )
}

fn respond_scale(call: &Call, scale: Value) -> Result<Response, Refusal> {
    let shaped = match call.form.shape {
        Shape::Object => scale,
        _ => super::shape::partial_object(&scale, "v1"),
    };
    call.api.value(StatusCode::OK, call.form, &shaped)
}

async fn scale(
    call: &mut Call,
    is_patch: bool,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Refusal> {
    let is_apply = is_patch && content_type(headers) == write::APPLY;
    if is_patch {
        let force = options::patch_options(&call.query, is_apply, &mut call.context)?;
        if is_apply {
            return apply_scale(call, body, force).await;
        }
    } else {
        options::write_options(&call.query, "UpdateOptions", &mut call.context)?;
    }
    let patch = if is_patch { Some(write::read_patch(headers, body)?) } else { None };
    let put = if is_patch { Value::Null } else { sent(call, &SCALE, headers, body)? };
    let (codec, context) = (call.api.registry.codec(), &call.context);
    let transform = |old: &Value| {
        let scale = match &patch {
            Some(patch) => codec.patched(&SCALE, context, patch, &scale_of(old)?)?,
            None => put.clone(),
        };
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
        check_replicas(&scale, replicas)?;
        let mut new = old.clone();
        new["spec"]["replicas"] = replicas.into();
        for field in ["name", "resourceVersion", "uid"] {
            object::carry(&mut new, &scale, field);
        }
        Ok(new)
    };
    let target = Target { subresource: "scale", ..Target::object(call.namespace(), &call.info.name) };
    let updated = call.api.registry.update(&call.kind, context, target, &transform).await?;
    respond_scale(call, scale_of(&updated.object)?)
}

/// PATCH with a `Scale` to apply.
async fn apply_scale(call: &Call, body: &Bytes, force: bool) -> Result<Response, Refusal> {
    let (registry, kind, context) = (&call.api.registry, &call.kind, &call.context);
    let scale = registry.codec().configuration(&SCALE, context, body, force)?;
    check_replicas(&scale.object, scale.object["spec"]["replicas"].as_i64().unwrap_or_default())?;
    let configuration = registry.scale_configuration(kind, &SCALE, scale)?;
    let target = Target {
        subresource: "scale",
        ownership: Ownership::Given,
        ..Target::object(call.namespace(), &call.info.name)
    };
    let transform =
        |old: &Value| registry.applied(kind, context, (target.part, target.subresource), old, &configuration);
    let updated = registry.update(kind, context, target, &transform).await?;
    respond_scale(call, scale_of(&updated.object)?)
}

fn check_replicas(scale: &Value, replicas: i64) -> Result<(), Refusal> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = Error::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", object::name(scale), &[error]).into())
}

/// Assigns a pod to a node.
///
/// # Errors
/// 409 when the pod has a node already or is being deleted.
pub(super) async fn bind(
    registry: &Registry,
    kind: &Kind,
    context: &Context,
    (namespace, name): (&str, &str),
    binding: &Value,
) -> Result<(), Refusal> {
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    let target_kind = binding["target"]["kind"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    let path = Path::new("target");
    if !target_kind.is_empty() && target_kind != "Node" {
        errors.push(Error::not_supported(&path.child("kind"), target_kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", name, &errors).into());
    }
    let now = wherry_machinery::time::format_seconds(context.now_unix_seconds);
    let conflict = |cause: String| Box::new(Status::conflict("", "pods/binding", name, cause));
    let transform = |old: &Value| {
        let uid = object::text(binding, "uid");
        if !uid.is_empty() && uid != object::text(old, "uid") {
            let have = object::text(old, "uid");
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
            )));
        }
        if object::is_deleting(old) {
            return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        if let Some(present) = old["spec"]["nodeName"].as_str().filter(|present| !present.is_empty()) {
            return Err(conflict(format!("pod {name} is already assigned to node {present:?}")));
        }
        if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.clone().into();
        let annotations = binding["metadata"]["annotations"].as_object().into_iter().flatten();
        for (key, value) in annotations {
            new["metadata"]["annotations"][key] = value.clone();
        }
        let labels = binding["metadata"]["labels"].as_object().into_iter().flatten();
        for (key, value) in labels.filter(|(key, _)| key.contains("topology.kubernetes.io/")) {
            if new["metadata"]["labels"].get(key).is_none() {
                new["metadata"]["labels"][key] = value.clone();
            }
        }
        set_condition(&mut new, "PodScheduled", &now);
        Ok(new)
    };
    registry.assign(kind, context, namespace, name, &transform).await
}

/// Sets a condition to true, keeping the time of a condition that was true already.
fn set_condition(pod: &mut Value, condition_type: &str, now: &str) {
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let condition =
        json!({"type": condition_type, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    match list.iter_mut().find(|condition| condition["type"] == condition_type) {
        Some(present) if present["status"] == "True" => {}
        Some(present) => *present = condition,
        None => list.push(condition),
    }
}

/// POST to `bindings`: the pod is named by the binding.
pub(super) async fn bind_by_name(
    call: &mut Call,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Refusal> {
    options::write_options(&call.query, "CreateOptions", &mut call.context)?;
    let binding = sent(call, &BINDING, headers, body)?;
    let (namespace, name) = (call.namespace().to_owned(), object::name(&binding).to_owned());
    bind(&call.api.registry, &call.kind, &call.context, (&namespace, &name), &binding).await?;
    Ok(write::done(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_the_selector_as_text() {
        let deployment = json!({"metadata": {"name": "d", "labels": {"a": "b"}}, "spec": {"replicas": 0,
            "selector": {"matchLabels": {"app": "x"}}}, "status": {}});
        let scale = scale_of(&deployment).unwrap();
        assert_eq!(scale["spec"], json!({}));
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=x"}));
        assert_eq!(scale["metadata"], json!({"name": "d"}));
    }
}

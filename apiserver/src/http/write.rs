//! POST, PUT, PATCH, DELETE.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use wherry_machinery::patch::PatchType;
use wherry_machinery::status::{Reason, Status, StatusDetails};

use super::negotiate::{MediaType, Shape, body_media_type, content_type};
use super::options::{self, ListOptions};
use super::{Call, list, shape};
use crate::codec::Patch;
use crate::kinds::Subresource;
use crate::registry::strategy::Part;
use crate::registry::{Ownership, Refusal, Target};

/// The media type of a configuration to apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// The part of an object that a path names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    subresource: Option<Subresource>,
}

impl Place {
    /// The object itself.
    const MAIN: Self = Self { subresource: None };

    /// A subresource.
    pub(super) fn of(subresource: Subresource) -> Self {
        Self { subresource: Some(subresource) }
    }

    fn target<'a>(&self, call: &'a Call, is_put: bool) -> Target<'a> {
        Target {
            part: if self.subresource == Some(Subresource::Status) { Part::Status } else { Part::Main },
            subresource: self.subresource.map_or("", Subresource::name),
            may_create: is_put && self.subresource.is_none(),
            act: self.subresource.and_then(Subresource::act),
            ..Target::object(call.namespace(), &call.info.name)
        }
    }
}

/// POST of an object.
pub(super) async fn create(call: &mut Call, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    options::write_options(&call.query, "CreateOptions", &mut call.context)?;
    let mut object = decode(call, headers, body)?;
    call.kind.strategy.default(&mut object);
    let namespace = call.namespace().to_owned();
    let created = call.api.registry.create(&call.kind, &call.context, &namespace, object).await?;
    list::answer(&call.api, &call.kind, StatusCode::CREATED, call.form, &call.query, created)
}

/// PUT of an object.
pub(super) async fn update(call: &mut Call, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    put(call, headers, body, &Place::MAIN).await
}

/// PUT of an object or a part of it.
pub(super) async fn put(
    call: &mut Call,
    headers: &HeaderMap,
    body: &Bytes,
    place: &Place,
) -> Result<Response, Refusal> {
    options::write_options(&call.query, "UpdateOptions", &mut call.context)?;
    let sent = decode(call, headers, body)?;
    let target = place.target(call, true);
    let updated = call.api.registry.update(&call.kind, &call.context, target, &|_| Ok(sent.clone())).await?;
    let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    list::answer(&call.api, &call.kind, code, call.form, &call.query, updated.object)
}

/// PATCH of an object.
pub(super) async fn patch(call: &mut Call, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    patch_at(call, headers, body, &Place::MAIN).await
}

/// The patch in a body.
pub(super) fn read_patch(headers: &HeaderMap, body: &Bytes) -> Result<Patch, Refusal> {
    let patch = |patch_type| Ok(Patch { patch_type, body: body.clone() });
    match content_type(headers) {
        "application/json-patch+json" => patch(PatchType::Json),
        "application/merge-patch+json" => patch(PatchType::Merge),
        "application/strategic-merge-patch+json" => patch(PatchType::StrategicMerge),
        _ => Err(Status::failure(Reason::UnsupportedMediaType, "415: Unsupported Media Type")
            .with_details(StatusDetails::default())
            .into()),
    }
}

/// PATCH of an object or a part of it.
pub(super) async fn patch_at(
    call: &mut Call,
    headers: &HeaderMap,
    body: &Bytes,
    place: &Place,
) -> Result<Response, Refusal> {
    let is_apply = content_type(headers) == APPLY;
    let force = options::patch_options(&call.query, is_apply, &mut call.context)?;
    if is_apply {
        return apply(call, body, place, force).await;
    }
    let patch = read_patch(headers, body)?;
    let target = place.target(call, false);
    let (codec, resource, context) = (call.api.registry.codec(), &call.kind.resource, &call.context);
    let transform = |old: &Value| codec.patched(resource, context, &patch, old);
    let updated = call.api.registry.update(&call.kind, context, target, &transform).await?;
    list::answer(&call.api, &call.kind, StatusCode::OK, call.form, &call.query, updated.object)
}

/// PATCH with a configuration to apply.
async fn apply(call: &mut Call, body: &Bytes, place: &Place, force: bool) -> Result<Response, Refusal> {
    let (api, kind, context) = (&call.api, &call.kind, &call.context);
    let target = Target { ownership: Ownership::Given, ..place.target(call, true) };
    let configuration = api.registry.codec().configuration(&kind.resource, context, body, force)?;
    let transform = |old: &Value| {
        api.registry.applied(kind, context, (target.part, target.subresource), old, &configuration)
    };
    let updated = api.registry.update(kind, context, target, &transform).await?;
    let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    list::answer(api, kind, code, call.form, &call.query, updated.object)
}

/// The object in a body, of this call's kind.
pub(super) fn decode(call: &Call, headers: &HeaderMap, body: &Bytes) -> Result<Value, Refusal> {
    let media_type = body_media_type(headers)?;
    call.api.registry.codec().decode(&call.kind.resource, &call.context, media_type, body)
}

fn delete_body(call: &Call, headers: &HeaderMap, body: &Bytes) -> Result<Option<Value>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    call.api.registry.codec().decode_delete_options(body_media_type(headers)?, body).map(Some)
}

/// DELETE of an object.
pub(super) async fn delete(call: &mut Call, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
    let sent = delete_body(call, headers, body)?;
    let options = options::delete_options(&call.query, sent.as_ref(), &mut call.context)?;
    let (namespace, name) = (call.namespace().to_owned(), call.info.name.clone());
    let deleted = call.api.registry.delete(&call.kind, &call.context, &namespace, &name, &options).await?;
    let code = if !deleted.gone && options.orphan_dependents == Some(false) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    match deleted.into_answer(&call.kind) {
        Ok(object) => list::answer(&call.api, &call.kind, code, call.form, &call.query, object),
        Err(status) => {
            let mut form = call.form;
            form.shape = Shape::Object;
            Ok(call.api.status(form, &status))
        }
    }
}

/// DELETE of a collection.
pub(super) async fn delete_collection(
    call: &mut Call,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Refusal> {
    let selection = ListOptions::parse(&call.query, &call.kind, call.wanted_namespace(), false)?;
    let sent = delete_body(call, headers, body)?;
    let options = options::delete_options(&call.query, sent.as_ref(), &mut call.context)?;
    let page = list::page(&call.api, &call.kind, &selection).await?;
    let names: Vec<(String, String)> =
        page.entries.iter().map(|entry| (entry.namespace().to_owned(), entry.name().to_owned())).collect();
    call.api.registry.delete_collection(&call.kind, &call.context, &names, &options).await?;
    let objects: Vec<Value> = page.entries.iter().map(|entry| entry.value()).collect();
    let metadata = json!({"resourceVersion": page.revision.to_string()});
    let tree = match call.form.shape {
        Shape::PartialObjectList(version) | Shape::PartialObject(version) => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            "items": objects.iter().map(|object| shape::partial_object(object, version)).collect::<Vec<_>>()}),
        Shape::Table(version) => {
            call.api.table_form(version, &call.query)?.table(&call.kind, &objects, metadata, true)
        }
        Shape::Object => list::list_tree(&call.kind, metadata, objects),
    };
    call.api.value(StatusCode::OK, call.form, &tree)
}

/// The `Status` of an act that was done and has no object to show, such as a binding.
pub(super) fn done(call: &Call) -> Response {
    let mut status = Status::success(StatusDetails::default());
    status.details = None;
    status.code = 201;
    let mut form = call.form;
    if form.media_type == MediaType::Json || form.shape != Shape::Object {
        form.shape = Shape::Object;
    }
    call.api.status(form, &status)
}

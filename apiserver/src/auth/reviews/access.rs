//! Access reviews: may somebody do something?
//!
//! Source: `k8s.io/kubernetes/pkg/apis/authorization/validation`.

use serde_json::{Map, Value, json};
use wherry_machinery::field::{Error as FieldError, Path};
use wherry_machinery::{Status, metadata};

use super::{AUTHORIZATION, present, subject_of, text};
use crate::auth::attributes::{Attributes, ResourceTarget, Target};
use crate::auth::authorizer::{Authorizer, Decision};
use crate::identity::Identity;
use crate::registry::Refusal;

/// The fields of `ResourceAttributes` that are texts.
const TEXT_FIELDS: [&str; 7] = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];

pub(super) fn self_subject(
    authorizer: &Authorizer,
    identity: &Identity,
    review: &Value,
) -> Result<Value, Refusal> {
    let spec = spec(review);
    refuse(validate(spec))?;
    Ok(json!({"spec": shown(spec), "status": status(authorizer, identity, spec)}))
}

pub(super) fn subject(authorizer: &Authorizer, review: &Value) -> Result<Value, Refusal> {
    let spec = spec(review);
    refuse(validate_with_subject(spec))?;
    Ok(json!({"spec": shown(spec), "status": status(authorizer, &subject_of(spec), spec)}))
}

pub(super) fn local_subject(
    authorizer: &Authorizer,
    review: &Value,
    namespace: &str,
) -> Result<Value, Refusal> {
    let spec = spec(review);
    let mut errors = validate_with_subject(spec);
    let own = metadata::namespace(review);
    let path = Path::new("spec");
    if let Some(attributes) = present(spec, "resourceAttributes")
        && text(attributes, "namespace") != own
    {
        let path = path.child("resourceAttributes").child("namespace");
        errors.push(FieldError::invalid(
            &path,
            text(attributes, "namespace"),
            "must match metadata.namespace",
        ));
    }
    if let Some(attributes) = present(spec, "nonResourceAttributes") {
        let path = path.child("nonResourceAttributes");
        errors.push(FieldError::invalid(&path, go_value(attributes), "disallowed on this kind of request"));
    }
    refuse(errors)?;
    if own.is_empty() {
        return Err(
            Status::bad_request("namespace is required on this type: localsubjectaccessreviews").into()
        );
    }
    if own != namespace {
        let message = "spec.resourceAttributes.namespace must match namespace: localsubjectaccessreviews";
        return Err(Status::bad_request(message).into());
    }
    Ok(json!({"spec": shown(spec), "status": status(authorizer, &subject_of(spec), spec)}))
}

fn spec(review: &Value) -> &Value {
    review.get("spec").unwrap_or(&Value::Null)
}

/// `NonResourceAttributes` as Go encodes the struct inside an error.
fn go_value(attributes: &Value) -> Value {
    json!({"Path": text(attributes, "path"), "Verb": text(attributes, "verb")})
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    match (present(spec, "resourceAttributes"), present(spec, "nonResourceAttributes")) {
        (Some(_), Some(attributes)) => vec![FieldError::invalid(
            &path.child("nonResourceAttributes"),
            go_value(attributes),
            "cannot be specified in combination with resourceAttributes",
        )],
        (None, None) => vec![FieldError::invalid(
            &path.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

fn validate_with_subject(spec: &Value) -> Vec<FieldError> {
    let mut errors = validate(spec);
    let has_groups = spec.get("groups").and_then(Value::as_array).is_some_and(|groups| !groups.is_empty());
    if text(spec, "user").is_empty() && !has_groups {
        let path = Path::new("spec").child("user");
        errors.push(FieldError::invalid(&path, "", "at least one of user or group must be specified"));
    }
    errors
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Refusal> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(AUTHORIZATION, "", "", &errors).into()) }
}

/// The spec without empty texts, as Go leaves them out.
fn shown(spec: &Value) -> Value {
    let mut shown = spec.as_object().cloned().unwrap_or_default();
    shown.retain(|key, value| !(value.is_null() || matches!(key.as_str(), "user" | "uid") && value == ""));
    for attributes in ["resourceAttributes", "nonResourceAttributes"] {
        if let Some(Value::Object(fields)) = shown.get_mut(attributes) {
            fields.retain(|key, value| {
                !value.is_null() && !(value == "" && (TEXT_FIELDS.contains(&key.as_str()) || key == "path"))
            });
        }
    }
    Value::Object(shown)
}

fn status(authorizer: &Authorizer, identity: &Identity, spec: &Value) -> Value {
    let empty = Value::Null;
    let (verb, target) = if let Some(attributes) = present(spec, "resourceAttributes") {
        let target = ResourceTarget {
            group: text(attributes, "group"),
            resource: text(attributes, "resource"),
            subresource: text(attributes, "subresource"),
            namespace: text(attributes, "namespace"),
            name: text(attributes, "name"),
            field_selector: attributes.pointer("/fieldSelector/rawSelector").and_then(Value::as_str),
            label_selector: attributes.pointer("/labelSelector/rawSelector").and_then(Value::as_str),
        };
        (text(attributes, "verb"), Target::Resource(target))
    } else {
        let attributes = present(spec, "nonResourceAttributes").unwrap_or(&empty);
        (text(attributes, "verb"), Target::Path(text(attributes, "path")))
    };
    let (allowed, reason) = match authorizer.decide(&Attributes { identity, verb, target }) {
        Decision::Allow { reason } => (true, reason),
        Decision::NoOpinion { reason } => (false, reason),
    };
    let mut status = Map::new();
    status.insert("allowed".to_owned(), allowed.into());
    if !reason.is_empty() {
        status.insert("reason".to_owned(), reason.into());
    }
    Value::Object(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_that_ask_nothing_or_two_things_are_refused() {
        let authorizer = Authorizer::default();
        let admin = Identity::admin("root");
        #[rustfmt::skip]
        let table = [
            (json!({}), "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"),
            (json!({"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}}), r#"spec.nonResourceAttributes: Invalid value: {"Path":"/","Verb":""}: cannot be specified in combination with resourceAttributes"#),
        ];
        for (spec, message) in table {
            let error = self_subject(&authorizer, &admin, &json!({"spec": spec})).unwrap_err();
            assert_eq!(error.message, format!(r#".authorization.k8s.io "" is invalid: {message}"#));
        }
        let nobody = json!({"spec": {"resourceAttributes": {"verb": "get"}}});
        assert!(
            subject(&authorizer, &nobody)
                .unwrap_err()
                .message
                .ends_with("at least one of user or group must be specified")
        );
        let elsewhere = json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}});
        assert_eq!(local_subject(&authorizer, &elsewhere, "a").unwrap_err().code, 422);
    }

    #[test]
    fn the_answer_shows_what_was_asked() {
        let review = json!({"spec": {"user": "ann", "resourceAttributes": {"verb": "get", "group": "", "resource": "pods"}}});
        let answer = subject(&Authorizer::default(), &review).unwrap();
        assert_eq!(
            answer,
            json!({"spec": {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "pods"}}, "status": {"allowed": false}})
        );
        let masters = json!({"spec": {"groups": ["system:masters"], "nonResourceAttributes": {"verb": "post", "path": "/x"}}});
        assert_eq!(subject(&Authorizer::default(), &masters).unwrap()["status"], json!({"allowed": true}));
    }
}

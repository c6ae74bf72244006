//! `serviceaccounts/token`: giving out tokens.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go`.

use serde_json::{Value, json};
use wherry_machinery::field::{Error as FieldError, Path};
use wherry_machinery::{Status, metadata, time};

use crate::registry::Refusal;

use super::{Bound, Claims, ObjectReference, Objects, Signer};

/// An hour, as Kubernetes.
pub const DEFAULT_LIFETIME_SECONDS: i64 = 3600;
const MIN_LIFETIME_SECONDS: i64 = 600;
const MAX_LIFETIME_SECONDS: i64 = 1 << 32;

const GROUP: &str = "authentication.k8s.io";

/// A request for a token.
pub struct TokenRequest<'a> {
    /// The service account's namespace.
    pub namespace: &'a str,
    /// The service account's name.
    pub name: &'a str,
    /// The `TokenRequest` as sent.
    pub body: &'a Value,
    /// The time.
    pub now_unix_seconds: i64,
}

/// Answers with the `TokenRequest` and its token.
///
/// # Errors
/// 404 when the account or the bound object is not there, 409 when its uid is another, 422 for what does not make sense.
pub fn token_request(
    signer: &Signer,
    objects: &dyn Objects,
    request: &TokenRequest<'_>,
) -> Result<Value, Refusal> {
    let TokenRequest { namespace, name, body, now_unix_seconds } = *request;
    let account = objects
        .object("serviceaccounts", namespace, name)
        .ok_or_else(|| Box::new(Status::not_found("", "serviceaccounts", name)))?;
    validate(body)?;
    let spec = body.get("spec");
    let field = |key: &str| spec.and_then(|spec| spec.get(key)).filter(|value| !value.is_null());
    let mut audiences: Vec<String> = field("audiences")
        .and_then(Value::as_array)
        .map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if audiences.is_empty() {
        audiences = vec![signer.issuer().to_owned()];
    }
    let lifetime = field("expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_LIFETIME_SECONDS);
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: ObjectReference { name: name.to_owned(), uid: metadata::uid(&account).to_owned() },
        ..Bound::default()
    };
    if let Some(reference) = field("boundObjectRef") {
        bind(&mut bound, objects, reference, name)?;
    }
    let claims = Claims {
        aud: audiences.clone(),
        exp: now_unix_seconds + lifetime,
        iat: now_unix_seconds,
        iss: signer.issuer().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        bound,
        nbf: now_unix_seconds,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = signer.sign(&claims).map_err(|error| Box::new(Status::internal(error)))?;
    Ok(json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": metadata::uid(&account),
            "creationTimestamp": time::format_seconds(now_unix_seconds),
        },
        "spec": {
            "audiences": audiences,
            "expirationSeconds": lifetime,
            "boundObjectRef": field("boundObjectRef").cloned().unwrap_or(Value::Null),
        },
        "status": {"token": token, "expirationTimestamp": time::format_seconds(claims.exp)},
    }))
}

fn validate(body: &Value) -> Result<(), Refusal> {
    let Some(seconds) = body.pointer("/spec/expirationSeconds").and_then(Value::as_i64) else {
        return Ok(());
    };
    let path = Path::new("spec").child("expirationSeconds");
    let error = if seconds < MIN_LIFETIME_SECONDS {
        FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > MAX_LIFETIME_SECONDS {
        FieldError::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(());
    };
    Err(Status::invalid(GROUP, "TokenRequest", "", &[error]).into())
}

/// Binds the token to the referenced object, after checking that it is the one meant.
fn bind(bound: &mut Bound, objects: &dyn Objects, reference: &Value, account: &str) -> Result<(), Refusal> {
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (resource, namespace) = match (kind, text("apiVersion")) {
        ("Pod", "v1") => ("pods", bound.namespace.clone()),
        ("Secret", "v1") => ("secrets", bound.namespace.clone()),
        ("Node", "v1") => ("nodes", String::new()),
        _ => {
            let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
            let version = if version.is_empty() { String::new() } else { format!("{version}, ") };
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}Kind={kind}"
            ))
            .into());
        }
    };
    let object = objects
        .object(resource, &namespace, name)
        .ok_or_else(|| Box::new(Status::not_found("", resource, name)))?;
    let uid = metadata::uid(&object);
    if !text("uid").is_empty() && text("uid") != uid {
        return Err(Status::conflict(
            "",
            resource,
            name,
            format!("the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated", text("uid")),
        )
        .into());
    }
    let found = ObjectReference { name: name.to_owned(), uid: uid.to_owned() };
    match resource {
        "pods" => {
            let used = object.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
            if used != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    wherry_machinery::field::go_quote(account)
                ))
                .into());
            }
            if let Some(node) =
                object.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty())
            {
                let uid = objects.object("nodes", "", node).map(|node| metadata::uid(&node).to_owned());
                bound.node = Some(ObjectReference { name: node.to_owned(), uid: uid.unwrap_or_default() });
            }
            bound.pod = Some(found);
        }
        "secrets" => bound.secret = Some(found),
        _ => bound.node = Some(found),
    }
    Ok(())
}

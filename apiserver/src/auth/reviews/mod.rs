//! The kinds by which one asks who one is and what one may: they are answered and never stored.

mod access;
mod rules;
mod subject;

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::negotiate::{Form, Streams, body_media_type};
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::{method_not_allowed, read_body, respond};
use crate::identity::Identity;
use crate::registry::Refusal;
use crate::registry::strategy::{Resource, Scope};
use crate::server::Inner;

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The kinds of review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// May I do this?
    SelfSubjectAccess,
    /// May he do this?
    SubjectAccess,
    /// May he do this in this namespace?
    LocalSubjectAccess,
    /// What may I do in this namespace?
    SelfSubjectRules,
    /// Who am I?
    SelfSubject,
    /// Whose token is this?
    Token,
}

impl Review {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SelfSubjectAccess,
        Self::SubjectAccess,
        Self::LocalSubjectAccess,
        Self::SelfSubjectRules,
        Self::SelfSubject,
        Self::Token,
    ];

    /// The names.
    pub fn resource(self) -> Resource {
        let (group, name, kind, scope) = match self {
            Self::SelfSubjectAccess => {
                (AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", Scope::Cluster)
            }
            Self::SubjectAccess => {
                (AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", Scope::Cluster)
            }
            Self::LocalSubjectAccess => {
                (AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", Scope::Namespaced)
            }
            Self::SelfSubjectRules => {
                (AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", Scope::Cluster)
            }
            Self::SelfSubject => (AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", Scope::Cluster),
            Self::Token => (AUTHENTICATION, "tokenreviews", "TokenReview", Scope::Cluster),
        };
        Resource { group, version: "v1", name, kind, scope }
    }

    /// The review that a request is about.
    pub fn of(info: &RequestInfo) -> Option<Self> {
        Self::ALL.into_iter().find(|review| {
            let resource = review.resource();
            let in_place = (resource.scope == Scope::Namespaced) != info.namespace.is_empty();
            (resource.group, resource.version, resource.name)
                == (info.api_group.as_str(), info.api_version.as_str(), info.resource.as_str())
                && info.subresource.is_empty()
                && in_place
        })
    }
}

/// Answers a review.
pub(crate) async fn answer(
    server: &Inner,
    review: Review,
    identity: &Identity,
    form: Form,
    info: &RequestInfo,
    request: Request,
) -> Result<Response, Refusal> {
    if info.verb != "create" || info.name_in_path {
        return Err(method_not_allowed());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let answer_form = Form::negotiate(request.headers(), &query, Streams::No)?;
    let media_type = body_media_type(request.headers())?;
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts.headers, body).await?;
    let context = server.registry.context(identity.clone());
    let resource = review.resource();
    let object = server.registry.codec().decode(&resource, &context, media_type, &bytes)?;
    let now = server.now_unix_seconds();
    let answered = match review {
        Review::SelfSubjectAccess => access::self_subject(&server.authorizer, identity, &object)?,
        Review::SubjectAccess => access::subject(&server.authorizer, &object)?,
        Review::LocalSubjectAccess => access::local_subject(&server.authorizer, &object, &info.namespace)?,
        Review::SelfSubjectRules => rules::self_subject(&server.authorizer, identity, &object)?,
        Review::SelfSubject => subject::who_am_i(identity, now),
        Review::Token => subject::token(&server.authenticator, server.signer.issuer(), &object, now)?,
    };
    let mut whole = Map::new();
    whole.insert("kind".to_owned(), resource.kind.into());
    whole.insert("apiVersion".to_owned(), resource.api_version().into());
    whole.insert(
        "metadata".to_owned(),
        object.get("metadata").filter(|m| m.is_object()).cloned().unwrap_or(json!({})),
    );
    if let Value::Object(fields) = answered {
        whole.extend(fields);
    }
    let form = Form { pretty: form.pretty, ..answer_form };
    let mut response =
        respond::value(server.registry.codec(), StatusCode::CREATED, form, &Value::Object(whole))?;
    respond::warn(&mut response, context.take_warnings());
    Ok(response)
}

/// The text of a field; empty if it is not there.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A field that is there and not null.
fn present<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// A `UserInfo`.
fn user_info(identity: &Identity) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), identity.user.clone().into());
    if !identity.uid.is_empty() {
        info.insert("uid".to_owned(), identity.uid.clone().into());
    }
    if !identity.groups.is_empty() {
        info.insert("groups".to_owned(), identity.groups.clone().into());
    }
    if !identity.extra.is_empty() {
        info.insert("extra".to_owned(), json!(identity.extra));
    }
    Value::Object(info)
}

/// The subject of a `SubjectAccessReviewSpec`.
fn subject_of(spec: &Value) -> Identity {
    let extra: BTreeMap<String, Vec<String>> = spec
        .get("extra")
        .and_then(Value::as_object)
        .map(|extra| extra.iter().map(|(key, values)| (key.clone(), strings(Some(values)))).collect())
        .unwrap_or_default();
    Identity {
        user: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: strings(spec.get("groups")),
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_reviews_only_where_they_are() {
        let of = |path: &str| Review::of(&RequestInfo::new(&http::Method::POST, path, &Query::default()));
        let table = [
            ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Some(Review::SelfSubjectAccess)),
            (
                "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews",
                Some(Review::LocalSubjectAccess),
            ),
            ("/apis/authorization.k8s.io/v1/localsubjectaccessreviews", None),
            ("/apis/authorization.k8s.io/v1/namespaces/a/subjectaccessreviews", None),
            ("/apis/authorization.k8s.io/v1beta1/subjectaccessreviews", None),
            ("/apis/authentication.k8s.io/v1/tokenreviews", Some(Review::Token)),
            ("/api/v1/tokenreviews", None),
        ];
        for (path, review) in table {
            assert_eq!(of(path), review, "{path}");
        }
    }
}

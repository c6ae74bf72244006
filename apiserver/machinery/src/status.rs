//! `Status`: the one form in which the API refuses.
//!
//! Source: `k8s.io/apimachinery/pkg/api/errors` for the wording, `meta/v1` for the fields.

use serde::{Deserialize, Serialize};

use crate::field;

/// Why a request was refused, in a form that programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Kubernetes' own reasons")]
pub enum Reason {
    Unknown,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    RequestEntityTooLarge,
    TooManyRequests,
    InternalError,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The text of the `reason` field; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::Unknown | Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// `meta/v1.Status`, as an error and as the body of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Status {
    /// Always `Status`.
    pub kind: String,
    /// Always `v1`.
    pub api_version: String,
    /// Empty, but for [`ListMeta::continue_token`].
    #[serde(default)]
    pub metadata: ListMeta,
    /// `Success` or `Failure`.
    pub status: String,
    /// What a person reads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What a program reads; see [`Reason`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the refusal is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code; absent in a success.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// The list metadata of a [`Status`]: empty but for a list that cannot go on at its revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMeta {
    /// The token with which to go on all the same.
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
}

/// `meta/v1.StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (plural) or kind, as Kubernetes fills it for the reason at hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One per field error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// After how many seconds to try again.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub retry_after_seconds: u32,
}

/// `meta/v1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// What a program reads, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a person reads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field's path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(code: &u16) -> bool {
    *code == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero_u32(seconds: &u32) -> bool {
    *seconds == 0
}

/// `resource` or `resource.group`, as messages name it.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A refusal without details.
    pub fn failure(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.as_str().to_owned(),
            details: None,
            code: reason.code(),
        }
    }

    /// A success about one object, the answer to a DELETE that removed it at once.
    pub fn success(details: StatusDetails) -> Self {
        Self {
            status: "Success".to_owned(),
            details: Some(details),
            code: 0,
            ..Self::failure(Reason::Unknown, "")
        }
    }

    /// With details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }

    /// With another HTTP code than the reason's own.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(Reason::BadRequest, message)
    }

    /// The server failed; `message` follows Kubernetes' `Internal error occurred: `.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        Self::failure(Reason::InternalError, format!("Internal error occurred: {text}")).with_details(
            StatusDetails {
                causes: vec![StatusCause { message: text, ..StatusCause::default() }],
                ..StatusDetails::default()
            },
        )
    }

    /// No object of that name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(
            Reason::NotFound,
            format!("{} {} not found", qualified(group, resource), field::go_quote(name)),
        )
        .with_details(details(group, resource, name))
    }

    /// An object of that name is there already.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(
            Reason::AlreadyExists,
            format!("{} {} already exists", qualified(group, resource), field::go_quote(name)),
        )
        .with_details(details(group, resource, name))
    }

    /// The object changed, or a precondition does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, cause: impl std::fmt::Display) -> Self {
        Self::failure(
            Reason::Conflict,
            format!(
                "Operation cannot be fulfilled on {} {}: {cause}",
                qualified(group, resource),
                field::go_quote(name)
            ),
        )
        .with_details(details(group, resource, name))
    }

    /// The stale-`resourceVersion` conflict, word for word.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Policy does not allow it.
    pub fn forbidden(group: &str, resource: &str, name: &str, cause: impl std::fmt::Display) -> Self {
        let what = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {cause}")
        } else {
            format!("{what} {} is forbidden: {cause}", field::go_quote(name))
        };
        Self::failure(Reason::Forbidden, message).with_details(details(group, resource, name))
    }

    /// Validation found these errors. `kind` is the kind (`Pod`), not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> Self {
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                reason: error.error_type.reason().to_owned(),
                message: error.body.clone(),
                field: error.path.to_string(),
            })
            .collect();
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let what = qualified(group, kind);
        let quoted = field::go_quote(name);
        let message = match texts.as_slice() {
            [] => format!("{what} {quoted} is invalid"),
            [one] => format!("{what} {quoted} is invalid: {one}"),
            many => format!("{what} {quoted} is invalid: [{}]", many.join(", ")),
        };
        Self::failure(Reason::Invalid, message)
            .with_details(StatusDetails { causes, ..details(group, kind, name) })
    }

    /// The version asked for is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(Reason::Expired, message)
    }
}

fn details(group: &str, kind: &str, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        ..StatusDetails::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn messages_are_worded_as_kubernetes_words_them() {
        let one = [Error::required(&Path::new("spec"), "")];
        let two = [Error::required(&Path::new("spec"), ""), Error::invalid(&Path::new("a"), 1, "no")];
        let table = [
            (Status::not_found("apps", "deployments", "x"), 404, r#"deployments.apps "x" not found"#),
            (Status::already_exists("", "pods", "x"), 409, r#"pods "x" already exists"#),
            (
                Status::modified("", "pods", "x"),
                409,
                r#"Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (Status::invalid("", "Pod", "x", &one), 422, r#"Pod "x" is invalid: spec: Required value"#),
            (
                Status::invalid("apps", "Deployment", "x", &two),
                422,
                r#"Deployment.apps "x" is invalid: [spec: Required value, a: Invalid value: 1: no]"#,
            ),
        ];
        for (status, code, message) in table {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }
}

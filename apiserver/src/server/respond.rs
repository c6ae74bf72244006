//! Answers that are not objects of the registry.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, StatusCode};
use wherry_machinery::status::{Reason, Status, StatusDetails};

const NO_SNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

fn with_type(code: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Plain text.
pub(crate) fn plain(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = with_type(code, HeaderValue::from_static("text/plain; charset=utf-8"), body.into());
    response.headers_mut().insert(NO_SNIFF.0, NO_SNIFF.1);
    response
}

/// What Go's mux answers for a path that it does not know.
pub(crate) fn plain_not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// JSON that is encoded already.
pub(crate) fn json_bytes(bytes: Bytes) -> Response {
    with_type(StatusCode::OK, HeaderValue::from_static("application/json"), bytes.into())
}

/// A `Status`, with its own code.
pub(crate) fn status(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::OK);
    // A `Status` is strings and numbers: it always encodes.
    let body = serde_json::to_vec(status).unwrap_or_default();
    let mut response = with_type(code, HeaderValue::from_static("application/json"), body.into());
    if let Some(seconds) =
        status.details.as_ref().map(|details| details.retry_after_seconds).filter(|&s| s > 0)
    {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The 404 of a path below a group that is served.
pub(crate) fn resource_not_found() -> Status {
    Status::failure(Reason::NotFound, "the server could not find the requested resource")
        .with_details(StatusDetails::default())
}

/// The 405 of a method that the path has not.
pub(crate) fn method_not_allowed() -> Response {
    let mut response = status(
        &Status::failure(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(StatusDetails::default()),
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

//! Answers: an object or a `Status` in the negotiated form, with its headers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use wherry_machinery::status::Status;

use super::negotiate::{Form, MediaType};
use super::slices::Slices;
use crate::codec::{self, Codec};
use crate::registry::Refusal;

/// A list this small is one slice; larger ones are streamed.
const STREAM_FROM_BYTES: usize = 32 * 1024;

/// An answer with a body of one piece.
pub fn bytes(code: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    headers(&mut response, content_type);
    response
}

/// An answer whose body is shared slices, written one after the other.
pub fn slices(code: StatusCode, content_type: &str, slices: Vec<Bytes>) -> Response {
    let total: usize = slices.iter().map(Bytes::len).sum();
    if total <= STREAM_FROM_BYTES {
        return bytes(code, content_type, slices.concat());
    }
    let mut response = Response::new(Body::new(Slices::new(slices)));
    *response.status_mut() = code;
    headers(&mut response, content_type);
    response
}

pub(super) fn headers(response: &mut Response, content_type: &str) {
    let headers: &mut HeaderMap = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
}

/// JSON, indented or on one line.
pub fn json(value: &impl Serialize, pretty: bool) -> Result<Vec<u8>, Refusal> {
    let encoded = if pretty {
        serde_json::to_vec_pretty(value)
    } else {
        serde_json::to_vec(value).map(|mut line| {
            line.push(b'\n');
            line
        })
    };
    encoded.map_err(|error| Box::new(Status::internal(error)))
}

/// An object in the negotiated encoding.
///
/// # Errors
/// 500 or 406, when it cannot be encoded so.
pub fn value(codec: &Codec, code: StatusCode, form: Form, value: &Value) -> Result<Response, Refusal> {
    let body = match form.media_type {
        MediaType::Json => json(value, form.pretty)?,
        MediaType::Yaml => codec::encode_yaml(value),
        MediaType::Protobuf => codec.encode_protobuf(value)?,
    };
    Ok(bytes(code, form.media_type.as_str(), body))
}

/// A `Status` in the negotiated encoding.
pub fn status(codec: &Codec, form: Form, status: &Status) -> Response {
    let code = StatusCode::from_u16(if status.code == 0 { 200 } else { status.code })
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let encoded = match form.media_type {
        // Not by way of a tree: the order of the fields is part of the text.
        MediaType::Json => json(status, form.pretty).map(|body| bytes(code, form.media_type.as_str(), body)),
        _ => serde_json::to_value(status)
            .map_err(|error| Box::new(Status::internal(error)))
            .and_then(|tree| value(codec, code, form, &tree)),
    };
    let mut response = encoded.unwrap_or_else(|_| {
        let body = json(status, false).unwrap_or_default();
        bytes(code, MediaType::Json.as_str(), body)
    });
    if let Some(details) = &status.details
        && details.retry_after_seconds > 0
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// Adds what is to be said beside the answer. Source: RFC 7234 5.5, as Kubernetes uses it.
pub fn warn(response: &mut Response, warnings: Vec<String>) {
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

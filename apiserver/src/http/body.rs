//! Reading a request's body, bounded.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use wherry_machinery::status::{Reason, Status};

use crate::registry::Refusal;

/// The largest body. Source: kube-apiserver's `MaxRequestBodyBytes`.
pub const LIMIT_BYTES: usize = 3 * 1024 * 1024;
/// So much of a body that is too large is read and thrown away, so that a client that writes before it reads sees the refusal.
const DRAIN_BYTES: usize = 32 * 1024 * 1024;

/// The whole body.
///
/// # Errors
/// 413 beyond [`LIMIT_BYTES`]; 400 when the client breaks off.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut too_large = announced.is_some_and(|length| length > LIMIT_BYTES);
    let mut stream = body.into_data_stream();
    let mut buffer = BytesMut::new();
    let mut drained = 0;
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| Box::new(Status::bad_request(format!("reading the body: {error}"))))?;
        if too_large || buffer.len() + chunk.len() > LIMIT_BYTES {
            too_large = true;
            drained += chunk.len();
            if drained > DRAIN_BYTES {
                break;
            }
        } else {
            buffer.extend_from_slice(&chunk);
        }
    }
    if too_large {
        let message = format!("Request entity too large: limit is {LIMIT_BYTES}");
        return Err(Status::failure(Reason::RequestEntityTooLarge, message).into());
    }
    Ok(buffer.freeze())
}

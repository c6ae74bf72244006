//! The gRPC health check, by hand: one HTTP/2 request with a message of one field.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::{authority, connect};

/// Most bytes of an answer that are read.
const MAX_BODY_BYTES: usize = 4096;

/// What `grpc.health.v1.Health/Check` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingStatus {
    /// 0.
    Unknown,
    /// 1.
    Serving,
    /// 2.
    NotServing,
    /// 3.
    ServiceUnknown,
}

impl ServingStatus {
    /// The name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Asks for the health of a service; the error is worded as the kubelet words it.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = authority(host, port);
    let too_slow = || {
        format!(
            "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
            timeout.as_secs()
        )
    };
    let status =
        tokio::time::timeout(timeout, exchange(host, port, service)).await.map_err(|_| too_slow())??;
    match status {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("service unhealthy (responded with {:?})", other.as_str())),
    }
}

async fn exchange(host: &str, port: u16, service: &str) -> Result<ServingStatus, String> {
    let stream = connect(host, port)
        .await
        .map_err(|error| format!("error: failed to connect service {:?}: {error}", authority(host, port)))?;
    let request =
        http::Request::post(format!("http://{}/grpc.health.v1.Health/Check", authority(host, port)))
            .version(http::Version::HTTP_2)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .header(http::header::USER_AGENT, "kube-probe/1.36")
            .body(Full::new(encode_request(service)))
            .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| error.to_string())?;
        let code = |headers: &http::HeaderMap| {
            headers.get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let status = body.trailers().and_then(code).or_else(|| code(&head.headers)).unwrap_or_default();
        match status.as_str() {
            "" | "0" => {
                decode_answer(&body.to_bytes()).ok_or_else(|| "malformed health check answer".to_owned())
            }
            "12" => {
                Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .to_owned())
            }
            "5" => Err("error: health rpc failed: service not found".to_owned()),
            code => Err(format!("error: health rpc failed: rpc error: code = {code}")),
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// `HealthCheckRequest { service = 1 }` in a gRPC frame.
fn encode_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        buffer.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    buffer.put_u8(u8::try_from(value).unwrap_or(0));
}

/// The status of `HealthCheckResponse { status = 1 }` in a gRPC frame; an absent field means unknown.
fn decode_answer(frame: &[u8]) -> Option<ServingStatus> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let message = message.get(..usize::try_from(length).ok()?)?;
    match message {
        [] | [0x08, 0] => Some(ServingStatus::Unknown),
        [0x08, 1, ..] => Some(ServingStatus::Serving),
        [0x08, 2, ..] => Some(ServingStatus::NotServing),
        [0x08, 3, ..] => Some(ServingStatus::ServiceUnknown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_health_protocol() {
        assert_eq!(encode_request(""), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(encode_request("ab"), Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']));
        for (frame, expected) in [
            (&[0_u8, 0, 0, 0, 2, 8, 1][..], Some(ServingStatus::Serving)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(ServingStatus::NotServing)),
            (&[0, 0, 0, 0, 0], Some(ServingStatus::Unknown)),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[0, 0], None),
        ] {
            assert_eq!(decode_answer(frame), expected);
        }
    }
}

//! The request that becomes a stream: what it asks for, and the answer that grants it.

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Error;

/// Where SPDY clients name the protocols that they speak over it.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What SPDY clients upgrade to.
pub const SPDY: &str = "SPDY/3.1";
/// Protocols in a request: more are noise.
const MAX_PROTOCOLS: usize = 16;

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// RFC 6455.
    WebSocket,
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// What the client wants its connection to become; `None`: it does not ask for a stream.
pub fn requested(headers: &HeaderMap) -> Option<Transport> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    if has_token(headers, &UPGRADE, "websocket") {
        return Some(Transport::WebSocket);
    }
    has_token(headers, &UPGRADE, SPDY).then_some(Transport::Spdy)
}

/// The protocols that the client names, in its order.
pub fn protocols(headers: &HeaderMap, transport: Transport) -> Vec<String> {
    let name = match transport {
        Transport::Spdy => PROTOCOL_VERSION,
        Transport::WebSocket => SEC_WEBSOCKET_PROTOCOL,
    };
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty());
    words.take(MAX_PROTOCOLS).map(str::to_owned).collect()
}

/// The first of the client's protocols that is among ours.
///
/// # Errors
/// There is none.
pub fn negotiate(headers: &HeaderMap, transport: Transport, ours: &[&str]) -> Result<String, Error> {
    let client = protocols(headers, transport);
    match client.iter().find(|protocol| ours.contains(&protocol.as_str())) {
        Some(protocol) => Ok(protocol.clone()),
        None => {
            Err(Error::Negotiate { client, server: ours.iter().map(|ours| (*ours).to_owned()).collect() })
        }
    }
}

/// The answer that grants the upgrade; the body is empty.
///
/// # Errors
/// A WebSocket request without key, or of another version than 13.
pub fn granted<B: Default>(
    headers: &HeaderMap,
    transport: Transport,
    protocol: &str,
) -> Result<Response<B>, Error> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Error::Upgrade(error.to_string()));
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match transport {
        Transport::Spdy => {
            answer.insert(UPGRADE, HeaderValue::from_static(SPDY));
            answer.insert(PROTOCOL_VERSION, value(protocol)?);
        }
        Transport::WebSocket => {
            if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
                return Err(Error::Upgrade("Sec-WebSocket-Version must be 13".to_owned()));
            }
            let key = headers.get(SEC_WEBSOCKET_KEY);
            let key = key.ok_or_else(|| Error::Upgrade("Sec-WebSocket-Key is missing".to_owned()))?;
            answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
            answer.insert(SEC_WEBSOCKET_ACCEPT, value(&derive_accept_key(key.as_bytes()))?);
            answer.insert(SEC_WEBSOCKET_PROTOCOL, value(protocol)?);
        }
    }
    Ok(response)
}

/// The HTTP status that refuses an upgrade.
pub fn refusal_code(error: &Error) -> StatusCode {
    match error {
        Error::Upgrade(_) => StatusCode::BAD_REQUEST,
        Error::Negotiate { .. } => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_transport_is_what_the_headers_ask_for() {
        for (pairs, expected) in [
            (
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..],
                Some(Transport::WebSocket),
            ),
            (&[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")], Some(Transport::Spdy)),
            (&[("upgrade", "websocket")], None),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], None),
            (&[], None),
        ] {
            assert_eq!(requested(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_clients_first_choice_that_we_speak_is_taken() {
        let client = headers(&[
            ("sec-websocket-protocol", "v9.channel.k8s.io, v5.channel.k8s.io"),
            ("sec-websocket-protocol", "v4.channel.k8s.io"),
        ]);
        let both = ["v4.channel.k8s.io", "v5.channel.k8s.io"];
        assert_eq!(negotiate(&client, Transport::WebSocket, &both).unwrap(), "v5.channel.k8s.io");
        let refused = negotiate(&client, Transport::Spdy, &both).unwrap_err();
        assert_eq!(refusal_code(&refused), StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_websocket_is_granted_as_the_rfc_says() {
        let asked =
            headers(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")]);
        let response: Response<()> = granted(&asked, Transport::WebSocket, "v5.channel.k8s.io").unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(granted::<()>(&headers(&[]), Transport::WebSocket, "x").is_err());
    }
}

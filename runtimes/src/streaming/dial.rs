//! The way to a runtime's streaming server.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;
use super::upgrade::{PROTOCOL_VERSION, SPDY};

/// A server on the same machine answers at once; one that does not is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// So much of a refusal is passed on, in bytes.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Where a runtime serves one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    address: SocketAddr,
    path: String,
}

impl Target {
    /// Reads the URL that a runtime answered. Only this machine's loopback is ever connected to: a runtime, or whoever
    /// answers in its place, must not send the node's connections elsewhere.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn parse(url: &str) -> Result<Self, Error> {
        let refused = |why| Error::Address { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| refused("it is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused("its scheme is not http"));
        }
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("it names a user"));
        }
        let address: SocketAddr =
            authority.as_str().parse().map_err(|_| refused("its host is not an address with a port"))?;
        if !address.ip().is_loopback() {
            return Err(refused("its host is not this machine's loopback"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address, path })
    }
}

/// How a streaming server answered.
#[derive(Debug)]
pub enum Answer {
    /// It granted the upgrade: with these headers, on this connection.
    Granted(HeaderMap, TokioIo<Upgraded>),
    /// It did not.
    Refused(StatusCode, String),
}

/// Asks for SPDY with these protocols.
pub fn spdy_headers(protocols: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols.iter().filter_map(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.append(PROTOCOL_VERSION, protocol);
    }
    headers
}

/// Connects and asks for an upgrade.
///
/// # Errors
/// The server cannot be reached or does not answer.
pub async fn upgrade(target: &Target, headers: HeaderMap) -> Result<Answer, Error> {
    let asked = timeout(ANSWER_TIMEOUT, ask(target, headers)).await;
    asked.unwrap_or_else(|_| Err(Error::Connect(std::io::ErrorKind::TimedOut.into())))
}

async fn ask(target: &Target, headers: HeaderMap) -> Result<Answer, Error> {
    let stream = TcpStream::connect(target.address).await.map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::Http)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target
        .path
        .parse()
        .map_err(|_| Error::Address { url: target.path.clone(), why: "its path cannot be asked for" })?;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&target.address.to_string());
    request.headers_mut().insert(HOST, host.map_err(|error| Error::Upgrade(error.to_string()))?);
    let connection = connection.with_upgrades();
    let answered = sender.send_request(request);
    tokio::pin!(connection, answered);
    // The connection is over for HTTP as soon as the upgrade is granted, which may be before the answer is seen.
    let mut is_over = false;
    let response = loop {
        tokio::select! {
            response = &mut answered => break response.map_err(Error::Http)?,
            ended = &mut connection, if !is_over => {
                ended.map_err(Error::Http)?;
                is_over = true;
            }
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers().clone();
        let upgrade = hyper::upgrade::on(response);
        let upgraded = if is_over { upgrade.await } else { tokio::join!(upgrade, connection).0 };
        return Ok(Answer::Granted(headers, TokioIo::new(upgraded.map_err(Error::Http)?)));
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect();
    tokio::pin!(body);
    let text = loop {
        tokio::select! {
            body = &mut body => break body.map(|body| body.to_bytes()).unwrap_or_default(),
            _ = &mut connection, if !is_over => is_over = true,
        }
    };
    Ok(Answer::Refused(status, String::from_utf8_lossy(&text).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_connected_to() {
        let target = Target::parse("http://127.0.0.1:4321/exec/abc?x=1").unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (4321, "/exec/abc?x=1"));
        assert!(Target::parse("http://[::1]:80/x").is_ok());
        for url in [
            "https://127.0.0.1:1/x",
            "http://10.0.0.1:1/x",
            "http://localhost:1/x",
            "http://127.0.0.1/x",
            "http://127.0.0.1:1@10.0.0.1:2/x",
            "/exec/abc",
            "",
            "http://169.254.169.254:80/x",
            "unix:///x",
        ] {
            assert!(matches!(Target::parse(url), Err(Error::Address { .. })), "{url}");
        }
    }
}

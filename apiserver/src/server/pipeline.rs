//! The way of a request: who asks, whether he may, whether there is room; then who answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prometheus_client::metrics::gauge::Gauge;
use tower::ServiceExt;
use wherry_machinery::status::{Reason, Status};

use super::duration::parse_go_duration;
use super::in_flight::too_many_requests;
use super::listener::StreamEnd;
use super::metrics::RequestLabels;
use super::{Inner, compress, resource_metrics, respond, routes};
use crate::auth::attributes::{Attributes, Target};
use crate::auth::authorizer::{Decision, forbidden};
use crate::auth::{PeerCertificate, impersonation, reviews};
use crate::codec::Codec;
use crate::http::negotiate::Form;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::identity::{Identity, MASTERS};
use crate::registry::Refusal;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client may choose its id; more than this is noise.
const MAX_AUDIT_ID_BYTES: usize = 64;
/// These answer to everybody, whatever the roles say. Source: `--authorization-always-allow-paths`.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/readyz", "/livez"];

/// Where requests come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The network: credentials say who asks.
    Network,
    /// The same process: the caller is known.
    InProcess(Arc<Identity>),
}

/// A pipeline with its source.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) server: Arc<Inner>,
    pub(super) source: Source,
}

/// The facts of one request.
struct Call {
    info: RequestInfo,
    query: Query,
    /// How errors are written.
    form: Form,
    codec: Arc<Codec>,
}

impl Call {
    fn refuse(&self, status: &Status) -> Response {
        crate::http::respond::status(&self.codec, self.form, status)
    }

    /// Whether the answer is a stream that lasts: no timeout, no place among the requests in flight.
    fn is_long_running(&self) -> bool {
        self.info.is_resource_request
            && (matches!(self.info.verb.as_str(), "watch" | "proxy")
                || matches!(
                    self.info.subresource.as_str(),
                    "attach" | "exec" | "proxy" | "log" | "portforward"
                ))
    }
}

/// Answers a request, whatever happens.
pub(super) async fn handle(State(pipeline): State<Pipeline>, request: Request) -> Response {
    let started = Instant::now();
    let server = Arc::clone(&pipeline.server);
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let call = Call {
        info: RequestInfo::new(request.method(), request.uri().path(), &query),
        form: Form::for_status(request.headers(), &query),
        query,
        codec: Arc::clone(server.registry.codec()),
    };
    let audit_id = audit_id(request.headers());
    let accepts_gzip = compress::is_accepted(request.headers());
    let method = request.method().clone();
    let answered = AssertUnwindSafe(pipeline.answer(&call, request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(method = %method, path = call.info.path, "answering a request panicked");
        let text = "This request caused apiserver to panic. Look in the logs for details.";
        call.refuse(&Status::internal(text))
    });
    if accepts_gzip && !call.is_long_running() {
        response = compress::compressed(response).await;
    }
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, audit_id);
    if !headers.contains_key(http::header::CACHE_CONTROL) {
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    server.observe(&call, &method, response.status().as_u16(), started.elapsed());
    response
}

/// The client's own id, or a new one.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(&AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID_BYTES)
    {
        return given.clone();
    }
    let id = uuid::Uuid::new_v4().to_string();
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Pipeline {
    async fn answer(self, call: &Call, mut request: Request) -> Response {
        let server = &self.server;
        let identity = match self.identify(call, &request) {
            Ok(identity) => identity,
            Err(refusal) => return call.refuse(&refusal),
        };
        impersonation::strip(request.headers_mut());
        // The pod's and the node's servers must never see the credentials.
        request.headers_mut().remove(http::header::AUTHORIZATION);

        let long_running = call.is_long_running();
        let over_network = matches!(self.source, Source::Network);
        let place = server.in_flight.enter(&call.info.verb);
        if place.is_none() && over_network && !long_running && !identity.is_in(MASTERS) {
            return too_many_requests();
        }
        let place = place.filter(|_| over_network && !long_running);

        let attributes = Attributes::of_request(&identity, &call.info, &call.query);
        if let Err(refusal) = authorize(server, &attributes) {
            return call.refuse(&refusal);
        }
        let end = request.extensions().get::<StreamEnd>().cloned();
        request.extensions_mut().insert(identity.clone());
        if long_running {
            let response = dispatch(server, call, identity, request).await;
            return stream(response, end, server.metrics.long_running());
        }
        let timeout = match timeout(&call.query, server.request_timeout) {
            Ok(timeout) => timeout,
            Err(refusal) => return call.refuse(&refusal),
        };
        let answered = tokio::time::timeout(timeout, dispatch(server, call, identity, request)).await;
        drop(place);
        answered.unwrap_or_else(|_| {
            call.refuse(&Status::failure(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            ))
        })
    }

    /// Who asks, after impersonation.
    fn identify(&self, call: &Call, request: &Request) -> Result<Identity, Refusal> {
        let server = &self.server;
        let identity = match &self.source {
            Source::InProcess(identity) => Identity::clone(identity),
            Source::Network => {
                let peer = request.extensions().get::<PeerCertificate>();
                server.authenticator.authenticate(peer, request.headers(), server.now_unix_seconds())?
            }
        };
        let attributes = Attributes::of_request(&identity, &call.info, &call.query);
        let impersonated = impersonation::impersonated(&server.authorizer, &attributes, request.headers())?;
        Ok(impersonated.unwrap_or(identity))
    }
}

fn authorize(server: &Inner, attributes: &Attributes<'_>) -> Result<(), Refusal> {
    if let Target::Path(path) = attributes.target
        && ALWAYS_ALLOWED.contains(&path)
    {
        return Ok(());
    }
    match server.authorizer.decide(attributes) {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } => Err(forbidden(attributes, &reason).into()),
    }
}

/// How long the request may take.
fn timeout(query: &Query, default: Duration) -> Result<Duration, Refusal> {
    let Some(text) = query.given("timeout") else { return Ok(default) };
    let wanted = parse_go_duration(text).ok_or_else(|| {
        Box::new(Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {}",
            wherry_machinery::field::go_quote(text)
        )))
    })?;
    Ok(if wanted.is_zero() { default } else { wanted.min(default) })
}

/// Hands the request to who answers it.
async fn dispatch(server: &Inner, call: &Call, identity: Identity, request: Request) -> Response {
    if !call.info.is_resource_request {
        // The body is not `Sync`, so a borrowed request could not be held over an await.
        let (head, _) = request.into_parts();
        return routes::answer(server, &call.info, &call.query, &head).await;
    }
    if let Some(review) = reviews::Review::of(&call.info) {
        return match reviews::answer(server, review, &identity, call.form, &call.info, request).await {
            Ok(response) => response,
            Err(refusal) => call.refuse(&refusal),
        };
    }
    if resource_metrics::is_asked(&call.info) {
        let (info, query, method) = (&call.info, &call.query, request.method().clone());
        // The body is not read, and not `Sync`.
        drop(request);
        return match server.resource_metrics.answer(&server.registry, info, query, &method).await {
            Ok(response) => response,
            Err(refusal) => call.refuse(&refusal),
        };
    }
    if !server.discovery.has_group(&call.info.api_group) {
        return respond::plain_not_found();
    }
    match server.resources.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Lets a stream end when the server does, and counts it while it lasts.
fn stream(response: Response, end: Option<StreamEnd>, gauge: &Gauge) -> Response {
    if !response.status().is_success() || response.body().is_end_stream() {
        return response;
    }
    let open = Open::new(gauge);
    response.map(|body| {
        let frames = body.into_data_stream().map(move |frame| {
            let _counted = &open;
            frame
        });
        match end {
            None => Body::from_stream(frames),
            Some(StreamEnd(token)) => Body::from_stream(frames.take_until(token.cancelled_owned())),
        }
    })
}

/// One open stream.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Inner {
    fn observe(&self, call: &Call, method: &Method, code: u16, duration: Duration) {
        let info = &call.info;
        tracing::debug!(method = %method, path = info.path, code, micros = duration.as_micros(), "answered");
        let known = info.is_resource_request
            && self.registry.kind(&info.api_group, &info.api_version, &info.resource).is_some();
        let text = |text: &str| if known { text.to_owned() } else { String::new() };
        let verb = match info.verb.as_str() {
            verb @ ("get" | "list" | "watch" | "create" | "update" | "patch" | "delete"
            | "deletecollection") => verb.to_ascii_uppercase(),
            _ => "OTHER".to_owned(),
        };
        let subresource = if code == 404 { String::new() } else { text(&info.subresource) };
        let labels = RequestLabels {
            verb,
            group: text(&info.api_group),
            version: text(&info.api_version),
            resource: text(&info.resource),
            subresource,
            scope: match () {
                () if !known => "",
                () if info.name_in_path => "resource",
                () if !info.namespace.is_empty() => "namespace",
                () => "cluster",
            },
        };
        self.metrics.observe(labels, code, (!call.is_long_running()).then_some(duration));
    }
}

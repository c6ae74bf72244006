//! The resource endpoints over HTTP: routing by [`request_info::RequestInfo`], content negotiation, verbs, watch streams.
//!
//! Called by the server's middleware, which has put the [`Identity`] into the request's extensions and has authorised it; calls
//! the registry.

mod body;
mod connector;
mod continue_token;
mod eviction;
mod list;
pub mod negotiate;
mod options;
pub mod query;
pub mod request_info;
pub mod respond;
mod shape;
mod slices;
mod subresource;
mod watch;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;
use wherry_machinery::status::{Reason, Status, StatusDetails};

pub use self::body::{LIMIT_BYTES, read as read_body};
pub use self::connector::{Connector, NoConnector};
use self::negotiate::{Form, Streams};
use self::options::ListOptions;
use self::query::Query;
use self::request_info::RequestInfo;
use self::shape::{Columns, TableForm};
use crate::identity::Identity;
use crate::kinds::Subresource;
use crate::registry::context::Context;
use crate::registry::{Kind, Refusal, Registry};

/// What the endpoints need.
#[derive(Clone)]
pub struct Api {
    /// The verbs.
    pub registry: Arc<Registry>,
    /// Who answers logs, exec and the like.
    pub connector: Arc<dyn Connector>,
    /// Ends watches when the server stops.
    pub shutdown: CancellationToken,
    columns: Columns,
}

/// The data that is built in does not read.
#[derive(Debug, thiserror::Error)]
#[error("the built-in table columns cannot be read")]
pub struct BadColumns(#[from] serde_json::Error);

impl Api {
    /// The endpoints of a registry.
    ///
    /// # Errors
    /// When the data that is built in does not read.
    pub fn new(
        registry: Arc<Registry>,
        connector: Arc<dyn Connector>,
        shutdown: CancellationToken,
    ) -> Result<Self, BadColumns> {
        Ok(Self { registry, connector, shutdown, columns: Columns::builtin()? })
    }

    fn value(&self, code: StatusCode, form: Form, value: &serde_json::Value) -> Result<Response, Refusal> {
        respond::value(self.registry.codec(), code, form, value)
    }

    fn status(&self, form: Form, status: &Status) -> Response {
        respond::status(self.registry.codec(), form, status)
    }

    fn table_form(&self, version: &'static str, query: &Query) -> Result<TableForm, Refusal> {
        let now = i64::try_from(self.registry.environment().now().as_secs()).unwrap_or(i64::MAX);
        TableForm::new(version, query, self.columns.clone(), now)
    }
}

/// Every resource endpoint. A request carries an [`Identity`] in its extensions; without one it is anonymous. Paths that name no
/// served resource answer 404: the server puts its own routes (discovery, health) before.
pub fn resource_router(api: Api) -> Router {
    Router::new().fallback(endpoint).with_state(api)
}

async fn endpoint(State(api): State<Api>, request: Request) -> Response {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let error_form = Form::for_status(request.headers(), &query);
    match answer(&api, &query, request).await {
        Ok(response) => response,
        Err(refusal) => api.status(error_form, &refusal),
    }
}

/// A request to one kind, taken apart.
struct Call {
    api: Api,
    kind: Arc<Kind>,
    info: RequestInfo,
    query: Query,
    context: Context,
    form: Form,
}

async fn answer(api: &Api, query: &Query, request: Request) -> Result<Response, Refusal> {
    let info = RequestInfo::new(request.method(), request.uri().path(), query);
    if !info.is_resource_request {
        return Err(no_such_resource());
    }
    // Bindings are not stored: they are a way to write to pods.
    let is_binding = info.resource == "bindings" && info.api_group.is_empty();
    let resource = if is_binding { "pods" } else { &info.resource };
    let kind =
        api.registry.kind(&info.api_group, &info.api_version, resource).ok_or_else(no_such_resource)?;
    let subresource = subresource(kind, &info)?;
    check_method(kind, &info, subresource, request.method())?;
    if is_binding && info.verb != "create" {
        return Err(method_not_allowed());
    }
    options::check_timeout(query)?;
    let identity = request.extensions().get::<Identity>().cloned().unwrap_or_else(Identity::anonymous);
    if let Some(Subresource::Connect(_)) = subresource {
        return api.connector.connect(&api.registry, &identity, &info, request).await;
    }
    let mut context = api.registry.context(identity);
    let agent = request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.unwrap_or_default().clone_into(&mut context.user_agent);
    let streams = if info.name_in_path { Streams::No } else { Streams::Yes };
    let call = Call {
        api: api.clone(),
        kind: Arc::clone(kind),
        form: Form::negotiate(request.headers(), query, streams)?,
        context,
        query: query.clone(),
        info,
    };
    route(call, subresource, request).await
}

async fn route(
    mut call: Call,
    subresource: Option<Subresource>,
    request: Request,
) -> Result<Response, Refusal> {
    let (headers, body) = {
        let (parts, body) = request.into_parts();
        (parts.headers, body)
    };
    let body = match call.info.verb.as_str() {
        "create" | "update" | "patch" | "delete" | "deletecollection" => body::read(&headers, body).await?,
        _ => bytes::Bytes::new(),
    };
    let (namespace, name) = (call.namespace().to_owned(), call.info.name.clone());
    let result = match (call.info.verb.as_str(), subresource) {
        ("get", None) => list::get(&call.api, &call.kind, (&namespace, &name), call.form, &call.query).await,
        ("list", None) => {
            let options = ListOptions::parse(&call.query, &call.kind, call.wanted_namespace(), false)?;
            list::list(&call.api, &call.kind, &options, call.form, &call.query).await
        }
        ("watch", None) => {
            let mut options = ListOptions::parse(&call.query, &call.kind, call.wanted_namespace(), true)?;
            options.selection.name = call.info.name_in_path.then(|| name.clone());
            watch::watch(&call.api, &call.kind, options, call.form, &call.query).await
        }
        ("create", None) if call.info.resource == "bindings" => {
            subresource::bind_by_name(&mut call, &headers, &body).await
        }
        ("create", None) => write::create(&mut call, &headers, &body).await,
        ("update", None) => write::update(&mut call, &headers, &body).await,
        ("patch", None) => write::patch(&mut call, &headers, &body).await,
        ("delete", None) => write::delete(&mut call, &headers, &body).await,
        ("deletecollection", None) => write::delete_collection(&mut call, &headers, &body).await,
        (_, Some(subresource)) => subresource::answer(&mut call, subresource, &headers, &body).await,
        _ => Err(method_not_allowed()),
    };
    let warnings = call.context.take_warnings();
    let mut response = result.unwrap_or_else(|refusal| {
        let form = Form { shape: negotiate::Shape::Object, ..call.form };
        call.api.status(form, &refusal)
    });
    respond::warn(&mut response, warnings);
    Ok(response)
}

impl Call {
    /// The namespace of the request; empty for cluster-scoped kinds.
    fn namespace(&self) -> &str {
        if self.kind.is_namespaced() { &self.info.namespace } else { "" }
    }

    fn wanted_namespace(&self) -> Option<String> {
        let namespace = self.namespace();
        (!namespace.is_empty()).then(|| namespace.to_owned())
    }
}

/// The subresource that the path names.
fn subresource(kind: &Kind, info: &RequestInfo) -> Result<Option<Subresource>, Refusal> {
    let in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
    if in_namespace && !kind.is_namespaced() {
        return Err(no_such_resource());
    }
    if info.subresource.is_empty() {
        return Ok(None);
    }
    let found = kind.subresources.iter().find(|subresource| subresource.name() == info.subresource);
    let is_deeper = info.parts.len() > 3;
    match found {
        Some(Subresource::Connect(name)) => Ok(Some(Subresource::Connect(name))),
        Some(subresource) if !is_deeper => Ok(Some(*subresource)),
        _ => Err(no_such_resource()),
    }
}

fn check_method(
    kind: &Kind,
    info: &RequestInfo,
    subresource: Option<Subresource>,
    method: &Method,
) -> Result<(), Refusal> {
    let in_place = !kind.is_namespaced() || !info.namespace.is_empty();
    let allowed = match subresource {
        Some(Subresource::Connect(_)) => true,
        Some(
            Subresource::Status | Subresource::Scale | Subresource::EphemeralContainers | Subresource::Resize,
        ) => {
            matches!(info.verb.as_str(), "get" | "update" | "patch")
        }
        Some(Subresource::Binding | Subresource::Eviction) => info.verb == "create",
        Some(Subresource::Finalize) => info.verb == "update",
        None => match info.verb.as_str() {
            "get" | "update" | "patch" | "delete" => in_place && info.name_in_path,
            "list" => true,
            "watch" => in_place || !info.name_in_path,
            "create" => in_place && !info.name_in_path,
            "deletecollection" => in_place && !kind.strategy.is_finalized_by_spec(),
            _ => false,
        },
    };
    if allowed && *method != Method::HEAD { Ok(()) } else { Err(method_not_allowed()) }
}

/// The path names nothing that is served.
pub fn no_such_resource() -> Refusal {
    Status::failure(Reason::NotFound, "the server could not find the requested resource")
        .with_details(StatusDetails::default())
        .into()
}

/// The path is served, but not this method.
pub fn method_not_allowed() -> Refusal {
    Status::failure(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
    .with_details(StatusDetails::default())
    .into()
}

#[cfg(test)]
mod tests;

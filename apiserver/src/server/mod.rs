//! The server: the way of a request from a connection to who answers it, and everything that is not a resource.
//!
//! Called by the binary. [`ApiServer::start`] brings up registry, authorisation and documents over a store; then
//! [`ApiServer::serve`] answers the network, [`ApiServer::router_as`] components in the same process.
//!
//! # Guarantees
//! - No request reaches a resource without an identity and a decision that allows it, on the network and in process.
//! - Every request gets an answer: a panic becomes a 500, a request without end (that is not a stream) a 504.

mod bootstrap;
mod cluster_dns;
mod compress;
mod connect;
mod duration;
mod health;
mod in_flight;
mod listener;
mod metrics;
mod node_connection;
mod node_proxy;
mod pipeline;
mod pod_log;
mod pod_stream;
mod resource_metrics;
pub(crate) mod respond;
mod routes;
mod tls;
mod tunnel;
mod version;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_storage::Store;

pub use health::HealthRegistry;
pub use in_flight::InFlightLimits;
pub use tls::{Error as TlsError, Tls};
pub use version::Version;

use crate::admission;
use crate::auth::admission::Authorization;
use crate::auth::authenticator::Anonymous;
use crate::auth::feed::{self, Sources};
use crate::auth::rbac::Kind as RbacKind;
use crate::auth::reviews::Review;
use crate::auth::token_file::TokenFile;
use crate::auth::{Authenticator, Authorizer};
use crate::codec::Codec;
use crate::discovery::{Discovery, Served};
use crate::http::{Api, resource_router};
use crate::identity::Identity;
use crate::kinds::{self, ServiceRanges};
use crate::openapi::OpenApi;
use crate::pki::Pki;
use crate::registry::context::Machine;
use crate::registry::{Refusal, Registry, expiry};
use crate::tokens::{self, DEFAULT_ISSUER, Signer, Verifier};

use connect::{CachedObjects, Connect};
use in_flight::InFlight;
use metrics::Metrics;
use node_connection::NodeConnection;
use pipeline::{Pipeline, Source};
use resource_metrics::ResourceMetrics;

/// What a server is made of and how it behaves.
pub struct Config {
    /// Where objects are kept. [`ApiServer::stop`] closes it.
    pub store: Arc<dyn Store>,
    /// The authority and its keys.
    pub pki: Arc<Pki>,
    /// `host:port` at which clients reach the server.
    pub external_address: String,
    /// Who issues service-account tokens.
    pub issuer: String,
    /// Fixed tokens.
    pub token_file: TokenFile,
    /// What to do with requests without credentials.
    pub anonymous: Anonymous,
    /// How many requests are answered at once.
    pub in_flight: InFlightLimits,
    /// A request that is not a stream has so long. Source: `--request-timeout`.
    pub request_timeout: Duration,
    /// What `/version` says.
    pub version: Version,
    /// Where Services draw their IPs and node ports from.
    pub service_ranges: ServiceRanges,
    /// Where cluster DNS listens: the Service `kube-dns` is made for it. `None`: there is none of our own.
    pub cluster_dns: Option<SocketAddr>,
}

impl Config {
    /// Kubernetes' defaults.
    pub fn new(store: Arc<dyn Store>, pki: Arc<Pki>, external_address: impl Into<String>) -> Self {
        Self {
            store,
            pki,
            external_address: external_address.into(),
            issuer: DEFAULT_ISSUER.to_owned(),
            token_file: TokenFile::default(),
            anonymous: Anonymous::Allowed,
            in_flight: InFlightLimits::default(),
            request_timeout: Duration::from_secs(60),
            version: Version::default(),
            service_ranges: ServiceRanges::default(),
            cluster_dns: None,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data that is built in does not read.
    #[error("the built-in {what} cannot be read")]
    BuiltIn {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed while everything was read from it.
    #[error("the store cannot be read")]
    Store(#[from] wherry_storage::Error),
    /// The signing key cannot be used.
    #[error("service account tokens cannot be signed")]
    Tokens(#[from] tokens::Error),
    /// Connections to kubelets cannot be made.
    #[error("kubelets cannot be connected to")]
    Tls(#[from] TlsError),
    /// What every cluster starts with could not be made.
    #[error("the first objects of the cluster cannot be made")]
    Bootstrap(#[source] Refusal),
}

/// A running API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

/// What the parts of a server share.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) authenticator: Authenticator,
    pub(crate) signer: Arc<Signer>,
    discovery: Discovery,
    openapi: OpenApi,
    resources: Router,
    resource_metrics: ResourceMetrics,
    health: HealthRegistry,
    metrics: Metrics,
    in_flight: InFlight,
    request_timeout: Duration,
    version: Version,
    external_url: String,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Inner {
    /// The time.
    pub(crate) fn now_unix_seconds(&self) -> i64 {
        i64::try_from(self.registry.environment().now().as_secs()).unwrap_or(i64::MAX)
    }
}

impl ApiServer {
    /// Reads the store, makes what every cluster has, and is ready to answer.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start(config: Config) -> Result<Self, Error> {
        let built_in =
            |what| move |source: Box<dyn std::error::Error + Send + Sync>| Error::BuiltIn { what, source };
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let codec = Arc::new(Codec::builtin().map_err(|error| built_in("types")(Box::new(error)))?);
        let authorizer = Arc::new(Authorizer::default());
        let mut plugins = admission::plugins();
        plugins.push(Arc::new(Authorization::new(Arc::clone(&authorizer))));
        let registry = Arc::new(Registry::new(
            config.store,
            kinds::table_with(&config.service_ranges),
            plugins,
            codec,
            Arc::new(Machine),
        ));
        let feed = Arc::clone(registry.feed());
        let loaded = feed.load().await?;
        let is_fed = Arc::new(AtomicBool::new(true));
        tasks.spawn({
            let (shutdown, is_fed) = (shutdown.clone(), Arc::clone(&is_fed));
            async move {
                feed.run(loaded, shutdown).await;
                is_fed.store(false, Ordering::Release);
            }
        });
        registry.adopt();
        feed::start(&authorizer, sources(&registry), &tasks, &shutdown);

        let signer = Arc::new(Signer::new(config.issuer, config.pki.service_account_key_pem())?);
        let verifier = Verifier::new(&signer, Arc::new(CachedObjects(Arc::clone(&registry))))?;
        let nodes = NodeConnection::new(&config.pki, tasks.clone(), shutdown.clone())?;
        let resource_metrics = ResourceMetrics::new(nodes.clone());
        let authority = Arc::clone(&authorizer);
        let connector = Arc::new(Connect { signer: Arc::clone(&signer), nodes, authorizer: authority });
        let api = Api::new(Arc::clone(&registry), connector, shutdown.clone())
            .map_err(|error| built_in("table columns")(Box::new(error)))?;
        let discovery = Discovery::new(discovered(&registry), &config.external_address);
        let openapi = OpenApi::new(served(&registry), &config.version.git_version);

        let own = bootstrap::OwnService::new(&config.service_ranges, &config.external_address);
        bootstrap::run(&registry, own.as_ref()).await.map_err(Error::Bootstrap)?;
        if let Some(endpoint) = config.cluster_dns {
            cluster_dns::publish(&registry, &config.service_ranges, endpoint).await;
        }
        tasks.spawn(aggregate_roles(Arc::clone(&registry), shutdown.clone()));
        tasks.spawn(expiry::run(Arc::clone(&registry), shutdown.clone()));

        let health = HealthRegistry::default();
        health.register_liveness("ping", || Ok(()));
        health.register_liveness("store", {
            move || {
                if is_fed.load(Ordering::Acquire) {
                    Ok(())
                } else {
                    Err("the watch cache is not fed".to_owned())
                }
            }
        });
        health.register("poststarthook/rbac/bootstrap-roles", || Ok(()));
        health.register("shutdown", {
            let shutdown = shutdown.clone();
            move || if shutdown.is_cancelled() { Err("process is shutting down".to_owned()) } else { Ok(()) }
        });
        let inner = Inner {
            registry,
            authorizer,
            authenticator: Authenticator::new(Arc::new(verifier), config.token_file, config.anonymous),
            signer,
            discovery,
            openapi,
            resources: resource_router(api),
            resource_metrics,
            health,
            metrics: Metrics::new(),
            in_flight: InFlight::new(config.in_flight),
            request_timeout: config.request_timeout,
            version: config.version,
            external_url: format!("https://{}", config.external_address),
            tasks,
            shutdown,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The API for a component in the same process: no authentication, but authorisation and admission as for everybody.
    /// A tower service, so that `kube::Client::new` takes it.
    pub fn router_as(&self, identity: Identity) -> Router {
        self.router(Source::InProcess(Arc::new(identity)))
    }

    fn router(&self, source: Source) -> Router {
        let pipeline = Pipeline { server: Arc::clone(&self.inner), source };
        Router::new().fallback(pipeline::handle).with_state(pipeline)
    }

    /// Answers the network until `shutdown`; then accepts nothing new, ends watches, and waits (for at most ten seconds) for
    /// what is being answered.
    pub async fn serve(&self, listener: TcpListener, tls: Tls, shutdown: CancellationToken) {
        let health = self.inner.health.clone();
        let stopping = shutdown.clone();
        health.register("shutdown", move || {
            if stopping.is_cancelled() { Err("process is shutting down".to_owned()) } else { Ok(()) }
        });
        listener::serve(listener, Some(tls), self.router(Source::Network), shutdown).await;
    }

    /// The checks behind `/readyz`; components report in here.
    pub fn health(&self) -> &HealthRegistry {
        &self.inner.health
    }

    /// The verbs, for tests and for who starts with the server.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// Stops everything that the server runs for itself, and closes the store.
    pub async fn stop(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.registry.store().close().await;
    }
}

/// The caches that authorisation reads.
fn sources(registry: &Registry) -> Sources {
    let cacher = |group: &str, resource: &str| {
        registry.kind(group, "v1", resource).map(|kind| Arc::clone(&kind.cacher))
    };
    let policies = RbacKind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, cacher("rbac.authorization.k8s.io", kind.resource())?)))
        .collect();
    Sources { policies, pods: cacher("", "pods"), volumes: cacher("", "persistentvolumes") }
}

/// Which of Kubernetes' resources this server has.
fn served(registry: &Registry) -> impl Fn(&str, &str, &str, &str) -> Option<Served> + '_ {
    |group, version, resource, subresource| {
        let review = Review::ALL.into_iter().map(Review::resource).find(|review| {
            (review.group, review.version, review.name) == (group, version, resource)
                && subresource.is_empty()
        });
        if review.is_some() {
            return Some(Served::Answered);
        }
        let kind = registry.kind(group, version, resource)?;
        if subresource.is_empty() {
            return Some(Served::Stored);
        }
        let found = kind.subresources.iter().find(|known| known.name() == subresource)?;
        let is_answered = !matches!(found, kinds::Subresource::Connect(_))
            || connect::is_answered(group, resource, subresource);
        is_answered.then_some(Served::Answered)
    }
}

/// The same, and what is asked of the nodes.
fn discovered(registry: &Registry) -> impl Fn(&str, &str, &str, &str) -> Option<Served> + '_ {
    let served = served(registry);
    move |group, version, resource, subresource| {
        if group == resource_metrics::GROUP {
            return Some(Served::Answered);
        }
        served(group, version, resource, subresource)
    }
}

/// Follows the ClusterRoles and keeps the aggregated ones up to date.
async fn aggregate_roles(registry: Arc<Registry>, shutdown: CancellationToken) {
    /// Roles come in groups (an apply of many): wait for the rest.
    const SETTLE: Duration = Duration::from_millis(20);
    const RETRY: Duration = Duration::from_secs(1);
    /// Events thrown away at a time: what counts is the state.
    const BATCH: usize = 256;
    let Some(kind) = registry.kind("rbac.authorization.k8s.io", "v1", "clusterroles") else { return };
    let mut watcher = kind.cacher.watch_from(&kind.cacher.snapshot(None, 0));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = watcher.changed() => {}
        }
        tokio::time::sleep(SETTLE).await;
        loop {
            match watcher.read(BATCH) {
                Ok(events) if events.is_empty() => break,
                Ok(_) => {}
                Err(_) => {
                    watcher = kind.cacher.watch_from(&kind.cacher.snapshot(None, 0));
                    break;
                }
            }
        }
        if let Err(error) = bootstrap::aggregate(&registry).await {
            tracing::warn!(%error, "aggregated roles could not be brought up to date");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;

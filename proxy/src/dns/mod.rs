//! Cluster DNS: the names of Services and pods, and the way to all others.
//!
//! Called by the binary ([`run`]); calls the API through `wherry-client`, and the node's resolvers. A pure function
//! ([`Zone::answer`]) says what a question is answered; the [`Index`] it reads is changed with each object, not made anew.
//!
//! Source: Kubernetes' DNS-Based Service Discovery, version 1.1.0.
//!
//! Invariants:
//! - An answer shows the newest objects that were seen; nothing of the cluster is answered from a cache.
//! - Nothing is answered before all objects have been seen once: an unfinished view would deny names that exist.
//! - The server never asks itself, directly or through the node's resolvers.

mod answer;
mod index;
mod respond;
mod server;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use wherry_client::{
    Lifecycle,
    informer::{Change, Informer, Informers},
};

pub use answer::{Answer, TTL_SECONDS, Zone};
pub use index::Index;

/// Where and for what the server answers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, with UDP and TCP.
    pub listen: SocketAddr,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The address of the Service in front of it.
    pub service_ip: Option<IpAddr>,
    /// The addresses of Services and pods: their reverse names are not asked for elsewhere.
    pub cluster_cidrs: Vec<IpNet>,
    /// The file that names the node's resolvers.
    pub resolv_conf: PathBuf,
}

/// Why the server stopped early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's domain is no name.
    #[error("the cluster domain {domain:?} is not a domain name")]
    Domain {
        /// As it was given.
        domain: String,
        /// Why.
        #[source]
        source: hickory_proto::ProtoError,
    },
    /// The port cannot be opened.
    #[error("cannot listen for DNS on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("the DNS socket failed")]
    Socket(#[source] io::Error),
    /// The watches ended before the server was told to stop.
    #[error("the watches of Services, EndpointSlices and Namespaces ended")]
    Watches,
}

/// Answer until `lifecycle` ends.
///
/// # Errors
/// [`Error`]. A question that cannot be answered is no error, and neither is a watch that is resumed.
///
/// # Cancellation
/// On shutdown both sockets close at once; whoever waits for an answer asks again.
pub async fn run(client: kube::Client, config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let zone = Zone::new(&config.cluster_domain, config.service_ip, config.cluster_cidrs.clone());
    let zone = zone.map_err(|source| Error::Domain { domain: config.cluster_domain.clone(), source })?;
    let listen_error = |source| Error::Listen { address: config.listen, source };
    let sockets = server::Sockets::open(config.listen).await.map_err(listen_error)?;
    let address = sockets.address().map_err(listen_error)?;

    let informers = Informers::new(client, &lifecycle);
    let index = Arc::new(RwLock::new(Index::default()));
    let namespaces = informers.of::<Namespace>();
    let services = informers.of::<Service>();
    let slices = informers.of::<EndpointSlice>();
    follow(&namespaces, &index, Index::add_namespace, Index::remove_namespace);
    follow(&services, &index, Index::put_service, Index::remove_service);
    follow(&slices, &index, Index::put_slice, Index::remove_slice);
    let synced = tokio::select! {
        () = lifecycle.shutdown.cancelled() => return Ok(()),
        synced = async {
            namespaces.wait_synced().await && services.wait_synced().await && slices.wait_synced().await
        } => synced,
    };
    if !synced {
        return Err(Error::Watches);
    }

    let upstream = upstream::Upstream::new(upstream::Options {
        resolv_conf: config.resolv_conf,
        own: config.service_ip.into_iter().collect(),
        listen: address,
    });
    let responder = Arc::new(respond::Responder { zone, index, upstream });
    tracing::debug!(%address, "cluster DNS is served");
    lifecycle.readiness.set_ready();
    let served = sockets.serve(responder, lifecycle.shutdown.child_token()).await;
    informers.shut_down().await;
    served.map_err(Error::Socket)
}

fn follow<K: wherry_client::informer::Kind>(
    informer: &Informer<K>,
    index: &Arc<RwLock<Index>>,
    put: fn(&mut Index, &K),
    remove: fn(&mut Index, &K),
) {
    let index = Arc::clone(index);
    informer.subscribe(move |change| {
        let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Deleted(object) => remove(&mut index, object),
            Change::Added(object) | Change::Updated { new: object, .. } => put(&mut index, object),
        }
    });
}

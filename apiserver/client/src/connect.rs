//! Ways to get a [`Client`]: from a kubeconfig over TLS, or in process to a router.

use std::path::{Path, PathBuf};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::{BoxError, Service};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig could not be read or does not say what it must.
    #[error("kubeconfig {path} is not usable")]
    Kubeconfig {
        /// Where the kubeconfig was looked for.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The configuration was read, but no client could be made from it (certificates, mostly).
    #[error("no client can be made from kubeconfig {path}")]
    Client {
        /// The kubeconfig the configuration came from.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client as the current context of the kubeconfig at `path` describes it.
///
/// # Errors
/// The file is absent or malformed, or its certificates are unusable. The server is not contacted.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, Error> {
    let unusable = |source| Error::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(unusable)?;
    Client::try_from(config)
        .map_err(|source| Error::Client { path: path.to_owned(), source: Box::new(source) })
}

/// A client whose requests are answered by `service` (the API server's router with an identity attached), without a
/// socket. Must be called within a tokio runtime.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

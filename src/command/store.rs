//! Which store the API server uses.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use wherry_storage::{
    Store,
    embedded::{self, Embedded},
    etcd::{self, Etcd, TlsOptions},
};

use crate::data_dir::DataDir;

/// Which store the API server uses.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArguments {
    /// `embedded`, or `etcd://HOST:PORT[,HOST:PORT...]`.
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    store: String,
    /// The authorities that sign etcd's certificates, PEM; with it, etcd is spoken to over TLS.
    #[arg(long, value_name = "FILE")]
    store_ca_file: Option<PathBuf>,
    /// Our certificate for etcd, PEM.
    #[arg(long, value_name = "FILE", requires = "store_key_file")]
    store_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "store_cert_file")]
    store_key_file: Option<PathBuf>,
}

impl StoreArguments {
    /// Open the store.
    pub(super) async fn open(&self, data_dir: &DataDir) -> anyhow::Result<Arc<dyn Store>> {
        if self.store == "embedded" {
            let path = data_dir.store();
            let opened =
                tokio::task::spawn_blocking(move || Embedded::open(&path, embedded::Options::default()))
                    .await?;
            return Ok(Arc::new(opened.context("cannot open the store")?));
        }
        let endpoints = self.endpoints()?;
        let tls = self.tls()?;
        let connected = Etcd::connect(&endpoints, tls, etcd::Options::default()).await;
        Ok(Arc::new(connected.with_context(|| format!("cannot use the store {}", self.store))?))
    }

    fn endpoints(&self) -> anyhow::Result<Vec<String>> {
        let list = self.store.strip_prefix("etcd://").filter(|list| !list.is_empty()).with_context(|| {
            format!("--store {:?} must be `embedded` or `etcd://HOST:PORT[,HOST:PORT...]`", self.store)
        })?;
        let scheme = if self.store_ca_file.is_some() { "https" } else { "http" };
        Ok(list.split(',').map(|endpoint| format!("{scheme}://{endpoint}")).collect())
    }

    fn tls(&self) -> anyhow::Result<Option<TlsOptions>> {
        let Some(ca) = &self.store_ca_file else { return Ok(None) };
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let identity_pem = match (&self.store_cert_file, &self.store_key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(Some(TlsOptions { ca_pem: Some(read(ca)?), identity_pem, server_name: None }))
    }
}

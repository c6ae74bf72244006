//! An API server on its own: `serve <data-dir> <port>` writes `<data-dir>/kubeconfig.yaml` and serves until Ctrl-C.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wherry_apiserver::pki::{ClientIdentity, Pki, ServingNames};
use wherry_apiserver::server::Tls;
use wherry_apiserver::{ApiServer, Config};
use wherry_storage::embedded::{Embedded, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let data_dir = PathBuf::from(arguments.next().ok_or("usage: serve <data-dir> <port>")?);
    let port: u16 = arguments.next().and_then(|port| port.to_str()?.parse().ok()).unwrap_or(0);
    std::fs::create_dir_all(&data_dir)?;
    let pki = Arc::new(Pki::open(&data_dir.join("pki"))?);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let store = Arc::new(Embedded::open(&data_dir.join("store.redb"), Options::default())?);
    let server = ApiServer::start(Config::new(store, Arc::clone(&pki), address.to_string())).await?;
    let tls = Tls::new(&pki, &ServingNames::default())?;
    let kubeconfig = data_dir.join("kubeconfig.yaml");
    pki.write_kubeconfig(&kubeconfig, &format!("https://{address}"), &ClientIdentity::Admin)?;

    let shutdown = CancellationToken::new();
    let interrupt = shutdown.clone();
    let serving = server.serve(listener, tls, shutdown);
    let interrupted = async move {
        let done = tokio::signal::ctrl_c().await;
        interrupt.cancel();
        done
    };
    let ((), interrupted) = tokio::join!(serving, interrupted);
    server.stop().await;
    Ok(interrupted?)
}

//! The controllers on their own: `run <kubeconfig> [<ca.pem>]` works against that API server until Ctrl-C.

use std::error::Error;
use std::path::PathBuf;

use wherry_client::{Lifecycle, connect};
use wherry_controllers::Config;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let kubeconfig = PathBuf::from(arguments.next().ok_or("usage: run <kubeconfig> [<ca.pem>]")?);
    let root_ca_pem = arguments.next().map(std::fs::read_to_string).transpose()?;
    let client = connect::from_kubeconfig(&kubeconfig).await?;
    let (lifecycle, mut report) = Lifecycle::new();
    let stop = lifecycle.shutdown.clone();
    let interrupted = async move {
        let outcome = tokio::signal::ctrl_c().await;
        stop.cancel();
        outcome
    };
    let watch_readiness = async move {
        while report.changed().await {
            eprintln!("not ready: {:?}", report.reasons());
        }
    };
    let controllers = wherry_controllers::run(client, Config { root_ca_pem, ..Config::default() }, lifecycle);
    let (outcome, interrupted, ()) = tokio::join!(controllers, interrupted, watch_readiness);
    outcome?;
    Ok(interrupted?)
}

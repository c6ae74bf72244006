//! A cluster for one test, and the ways to look at it.

mod cluster;
mod containers;
mod dns;
mod etcd;
mod guests;
mod health;
mod http;
mod namespace;
mod registry;
mod second_node;
mod site;

pub(crate) use cluster::{Component, Output, TestCluster, free_port, samples as samples_folder};
pub(crate) use containers::{BUSYBOX, missing as missing_for_containers};
pub(crate) use dns::addresses_of;
pub(crate) use etcd::TestEtcd;
pub(crate) use guests::{Answering, COMMAND, Echoing, HTTP, guest_file};
pub(crate) use health::Health;
pub(crate) use http::{Keepalive, get, try_get};
pub(crate) use registry::Registry;
pub(crate) use second_node::SecondNode;
pub(crate) use site::{Outside, Routed, Site};

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Long, because machines differ; nothing waits so long in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Tries `probe` until it gives something; the last word of what was missing is shown when patience ends.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > PATIENCE => panic!("{what} did not come about: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

//! The pod network of a node in routed mode: who has which part of the range, and the routes there.
//!
//! The Node's range ([`range`]) is halved: containers get addresses of the first half through CNI, on a bridge; Wasm pods
//! those of the second, which one `local` route makes this machine's own, so that an address costs nothing. Two parts:
//! - [`own`], in the kubelet, waits for the Node's range, makes it usable and tells the runtimes;
//! - [`run_peers`], with an identity that may read all Nodes (a kubelet's may not), keeps the way to the others' ranges:
//!   a route where they share a link, else VXLAN.
//!
//! Flow: Nodes and what the kernel has are read, a pure plan ([`plan`]) says what should be there and what differs,
//! [`netlink`] does it. Every route of ours carries a protocol number of our own, so that what a former run left behind is
//! known and goes.
//!
//! Assumptions: IPv4; this process may change the network namespace that it is in. Nothing is undone at the end: guests
//! and containers go on. [`remove_all`] undoes everything.

mod cni;
mod error;
mod netlink;
mod own;
mod peers;
pub mod plan;
pub mod range;
mod remove;
mod sysctl;

pub use cni::CniConfig;
pub use error::Error;
pub use own::RoutedConfig;
pub(crate) use own::{PodNetwork, bring_up};
pub use peers::{PeersConfig, run_peers};
pub use remove::remove_all;

/// The bridge of containers.
pub const BRIDGE: &str = "wherry0";

/// The VXLAN device.
pub const TUNNEL: &str = "wherry.1";

/// After how long what the kernel has is compared again with what it should have, whatever happened.
const RESYNC_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

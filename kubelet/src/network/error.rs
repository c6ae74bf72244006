//! What can go wrong with the pod network.

use std::path::PathBuf;

/// A step that failed. All are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Netlink is not to be had.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] std::io::Error),
    /// The kernel refused.
    #[error("cannot {step}")]
    Kernel {
        /// What was to be done.
        step: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A device that a route needs is not there.
    #[error("there is no network device {name}")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// The node's own address is on no device.
    #[error("no network device has the node's address {address}")]
    NoNodeAddress {
        /// The address.
        address: std::net::Ipv4Addr,
    },
    /// A kernel parameter has another value and cannot be changed.
    #[error("{name} must be {value}, and cannot be set; set it on the machine: sysctl -w {name}={value}")]
    Sysctl {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        value: &'static str,
        /// Why it cannot be set.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Node's range is none that can be used.
    #[error("the node's pod CIDR {cidr:?} cannot be used: {reason}")]
    Range {
        /// As the Node says it.
        cidr: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The watch of Nodes ended.
    #[error("the watch of nodes ended")]
    Watch,
}

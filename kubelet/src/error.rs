//! What can go wrong with the node as a whole. What goes wrong with one pod is a status and an event, not an error.

use std::path::PathBuf;

/// A step of the kubelet that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime was given, or the default handler names none.
    #[error("no runtime for handler {handler:?} is configured")]
    NoRuntime {
        /// The handler.
        handler: String,
    },
    /// A directory could not be made.
    #[error("directory {path:?} cannot be made")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A runtime refused a call that is needed at start.
    #[error("runtime does not answer {verb}")]
    Runtime {
        /// The CRI verb.
        verb: &'static str,
        /// Why.
        #[source]
        source: wherry_runtimes::Error,
    },
    /// The API server refused a call.
    #[error("request to the API server failed: {step}")]
    Api {
        /// What was to be done.
        step: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Certificates of the node API.
    #[error("serving certificate of the node is not usable: {detail}")]
    Certificate {
        /// Why.
        detail: String,
    },
    /// The node API's address.
    #[error("node API cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The machine does not say what it has.
    #[error("{path} cannot be read")]
    Machine {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

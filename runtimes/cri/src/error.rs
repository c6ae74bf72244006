//! Why an endpoint could not be opened.

use std::path::PathBuf;

/// An endpoint that cannot be served or named.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is not `unix:///path` or an absolute path.
    #[error("endpoint {0:?} is not unix:///path or an absolute path")]
    Endpoint(String),
    /// Another process answers at the socket.
    #[error("another process serves {}", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server ended.
    #[error("the server failed")]
    Serve(#[source] tonic::transport::Error),
}

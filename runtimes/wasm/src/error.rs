//! Why the runtime could not start.

use std::path::PathBuf;

/// A step of the start that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the runtime cannot be used.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] crate::image::Error),
    /// The engine or its cache cannot be made.
    #[error("{0}")]
    Engine(String),
    /// Threads for guests cannot be started.
    #[error("cannot start the threads of guests")]
    Threads(#[source] std::io::Error),
}

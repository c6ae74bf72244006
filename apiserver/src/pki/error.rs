//! Why the certificates are not to be had.

use std::path::PathBuf;

/// Why the certificates are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path} cannot be {action}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done, as a participle.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key could not be made.
    #[error("the certificate {name:?} cannot be made")]
    Certificate {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A file does not hold a certificate or key.
    #[error("{path} does not hold a {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A node name that cannot stand in a certificate or file name.
    #[error("{name:?} is not a node name")]
    NodeName {
        /// The name.
        name: String,
    },
}

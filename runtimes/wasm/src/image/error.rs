//! What can be wrong with an image, its name, its file or its registry.

use std::path::PathBuf;

/// A step with an image that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be read as a reference.
    #[error("invalid image name {name:?}: {why}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A `.wasm` file or a layout without a name in it was loaded without giving one.
    #[error("{} carries no image name: give one", .0.display())]
    NoName(PathBuf),
    /// A file of the store or of the image could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was done to it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Neither WebAssembly nor an OCI layout.
    #[error("{} is neither a WebAssembly file nor an OCI image layout", .0.display())]
    UnknownFormat(PathBuf),
    /// A JSON document of the image or the store is not what it should be.
    #[error("cannot read {what}")]
    Json {
        /// Which document.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something is larger than it may be.
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Which part.
        what: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// Content does not have the digest that it was asked by.
    #[error("{what}: expected digest {expected}, got {actual}")]
    Digest {
        /// Which part.
        what: String,
        /// As named.
        expected: String,
        /// As computed.
        actual: String,
    },
    /// The image cannot be run by this runtime, and why.
    #[error("not a WebAssembly image: {0}")]
    NotWasm(String),
    /// The registry asks for other credentials.
    #[error("registry denied access to {name}: {why}")]
    Denied {
        /// The image.
        name: String,
        /// As the registry said.
        why: String,
    },
    /// The registry does not have it.
    #[error("image {0} not found in its registry")]
    NotFound(String),
    /// The registry could not be asked.
    #[error("cannot pull {name}: {why}")]
    Registry {
        /// The image.
        name: String,
        /// What happened.
        why: String,
    },
}

impl Error {
    /// A failed step on a file, for `map_err`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// This error and its sources in one line, as CRI carries it.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl From<Error> for wherry_runtimes::Error {
    fn from(error: Error) -> Self {
        let text = error.chain();
        match error {
            Error::NotFound(_) => Self::NotFound(text),
            Error::Denied { .. } => Self::PermissionDenied(text),
            Error::Registry { .. } => Self::Unavailable(text),
            Error::File { .. } => Self::Internal(text),
            Error::Name { .. }
            | Error::NoName(_)
            | Error::UnknownFormat(_)
            | Error::Json { .. }
            | Error::TooLarge { .. }
            | Error::Digest { .. }
            | Error::NotWasm(_) => Self::InvalidArgument(text),
        }
    }
}

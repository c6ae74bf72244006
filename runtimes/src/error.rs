//! What a runtime answers when it cannot do what was asked.

/// The result of a call to a runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that failed, by gRPC's codes: that is what travels between processes, and what callers decide on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The sandbox, container or image does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It exists already, under another id or with another content.
    #[error("{0}")]
    AlreadyExists(String),
    /// What was asked makes no sense, whatever the state.
    #[error("{0}")]
    InvalidArgument(String),
    /// What was asked makes no sense in the present state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The runtime has no address, slot or memory left.
    #[error("{0}")]
    ResourceExhausted(String),
    /// The registry refuses these credentials, or the file system this access.
    #[error("{0}")]
    PermissionDenied(String),
    /// The runtime (or the registry behind it) does not answer; trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// It took longer than it may.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The caller went away, or the runtime is being stopped.
    #[error("{0}")]
    Cancelled(String),
    /// This runtime does not have this verb.
    #[error("{0}")]
    Unimplemented(String),
    /// Events or data were lost; list to know the state.
    #[error("{0}")]
    DataLoss(String),
    /// A fault in the runtime.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// `<object> "<id>" not found`, for sandboxes and containers.
    pub fn not_found(object: &str, id: &str) -> Self {
        Self::NotFound(format!("{object} {id:?} not found"))
    }

    /// Whether the object is not (or no longer) there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::DeadlineExceeded(_) | Self::ResourceExhausted(_))
    }
}

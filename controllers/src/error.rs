//! What can go wrong in a controller.

/// Why work on a key, or a controller as a whole, failed. Both are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server was not reached or refused.
    #[error("{action} failed")]
    Api {
        /// What was to be done.
        action: &'static str,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The informers were stopped before they had seen everything.
    #[error("informers stopped before they were in sync")]
    NotSynced,
    /// An object's selector is not valid.
    #[error("selector of {object} is not valid: {message}")]
    Selector {
        /// The object.
        object: String,
        /// What is wrong with the selector.
        message: String,
    },
    /// An owner reference names a kind that the API server does not have.
    #[error("no resource for kind {kind} in {api_version}")]
    UnknownKind {
        /// The API version of the reference.
        api_version: String,
        /// The kind of the reference.
        kind: String,
    },
    /// Not all replicas could be created or deleted.
    #[error("replicas of {object} are not as wanted: {message}")]
    Replicas {
        /// The object.
        object: String,
        /// What the API server said.
        message: String,
    },
    /// What was just written has not been seen by the informer yet.
    #[error("cache of {object} is not up to date")]
    StaleCache {
        /// The object.
        object: String,
    },
    /// The cluster's range cannot be divided as asked.
    #[error("parts of /{mask_size} do not fit into the cluster's range {cluster}")]
    NodeRanges {
        /// The cluster's range.
        cluster: ipnet::Ipv4Net,
        /// The bits of each node's part.
        mask_size: u8,
    },
    /// Every part of the cluster's range is some node's.
    #[error("no range is left for node {node}")]
    NoRangeLeft {
        /// The node.
        node: String,
    },
    /// Not everything is gone yet.
    #[error("namespace {namespace} still has content: {remaining}")]
    ContentRemains {
        /// The namespace.
        namespace: String,
        /// What is left.
        remaining: String,
    },
}

impl Error {
    /// The mapping of a failed call.
    pub(crate) fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { action, source: Box::new(source) }
    }
}

/// An error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

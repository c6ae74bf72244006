//! What carries a [`Ruleset`] out.

use std::sync::Arc;

use async_trait::async_trait;

use crate::rules::Ruleset;

/// What came of applying a ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Service ports that were added, changed or removed.
    pub changed: usize,
    /// What could not be served and was reported; it is tried again when the ruleset is applied again.
    pub unserved: usize,
}

/// Why the rules in force are not those of the ruleset.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// What stands is of no use to this backend; another one may do.
    #[error("{mode} cannot be used: {reason}")]
    Unavailable {
        /// Which backend.
        mode: crate::ProxyMode,
        /// Why.
        reason: String,
    },
    /// A rule change was refused.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What the kernel, or the program that speaks to it, said.
        #[source]
        source: std::io::Error,
    },
}

impl BackendError {
    /// An error of that step, for `map_err`.
    pub fn at(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}

/// Rules in force.
///
/// *Guarantees.* Rules of a former run, of this backend, are replaced by the first [`Backend::apply`], in one step wherever the
/// kernel allows: a connection is never answered as if there were no Services. Established connections are left alone.
///
/// *Cancellation.* A call that is dropped leaves either the old rules or the new ones; the next call repairs.
#[async_trait]
pub trait Backend: Send {
    /// Make the rules in force those of `ruleset`. Only what differs from the last ruleset is touched.
    ///
    /// # Errors
    /// The rules are what they were, or unknown; the next call starts from what it knows to be in force.
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError>;

    /// Whether the rules in force are still what [`Backend::apply`] made them. If they are not (somebody else changed them),
    /// the next `apply` makes all of them again.
    ///
    /// # Errors
    /// They cannot be looked at.
    async fn verify(&mut self) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// End. What lives in the kernel stays in force, so that a restart is not noticed; see each backend's `clean_up`.
    async fn close(self: Box<Self>);
}

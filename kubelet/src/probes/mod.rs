//! Probes: one small task for each probe of a running container.

pub mod grpc;
pub mod http;
mod tally;
mod worker;

pub use tally::{Tally, Thresholds};
pub(crate) use worker::{ProbeTarget, Probes};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Until it succeeds, the others do not run.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Decides whether the pod gets traffic.
    Readiness,
}

impl ProbeKind {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

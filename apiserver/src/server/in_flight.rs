//! How many requests are answered at once.
//!
//! Source: `k8s.io/apiserver/pkg/server/filters/maxinflight.go`.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Kubernetes' `--max-requests-inflight` and `--max-mutating-requests-inflight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightLimits {
    /// Reads.
    pub read_only: usize,
    /// Writes.
    pub mutating: usize,
}

impl Default for InFlightLimits {
    fn default() -> Self {
        Self { read_only: 400, mutating: 200 }
    }
}

/// Counts the requests of both kinds.
#[derive(Debug)]
pub(crate) struct InFlight {
    limits: InFlightLimits,
    read_only: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

/// Whether a request changes something.
pub(crate) fn is_mutating(verb: &str) -> bool {
    !matches!(verb, "get" | "list" | "watch" | "head" | "options")
}

impl InFlight {
    pub(crate) fn new(limits: InFlightLimits) -> Self {
        Self {
            limits,
            read_only: Arc::new(Semaphore::new(limits.read_only)),
            mutating: Arc::new(Semaphore::new(limits.mutating)),
        }
    }

    /// A place for the request, given back when dropped; `None` when all are taken.
    pub(crate) fn enter(&self, verb: &str) -> Option<OwnedSemaphorePermit> {
        let places = if is_mutating(verb) { &self.mutating } else { &self.read_only };
        Arc::clone(places).try_acquire_owned().ok()
    }

    /// How many reads and writes are being answered.
    pub(crate) fn current(&self) -> (usize, usize) {
        (
            self.limits.read_only - self.read_only.available_permits(),
            self.limits.mutating - self.mutating.available_permits(),
        )
    }
}

/// The answer when all places are taken.
pub(crate) fn too_many_requests() -> Response {
    let text = "Too many requests, please try again later.\n";
    let mut response = super::respond::plain(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_have_places_of_their_own() {
        let in_flight = InFlight::new(InFlightLimits { read_only: 1, mutating: 1 });
        let read = in_flight.enter("list").unwrap();
        assert!(in_flight.enter("get").is_none());
        let write = in_flight.enter("patch").unwrap();
        assert!(in_flight.enter("delete").is_none());
        assert_eq!(in_flight.current(), (1, 1));
        drop((read, write));
        assert_eq!(in_flight.current(), (0, 0));
        assert!(in_flight.enter("get").is_some());
        assert_eq!(too_many_requests().headers()[RETRY_AFTER], "1");
    }
}

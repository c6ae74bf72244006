//! Retrying writes that lost a race, and the API errors that callers tell apart.

use std::time::Duration;

use crate::backoff::jitter;

/// Attempts of [`retry_on_conflict`], as client-go's `DefaultRetry`.
const ATTEMPTS: u32 = 5;
/// The pause between attempts, as client-go's `DefaultRetry`.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `attempt` (which reads the object again and writes it) until it does not fail with a conflict, five times at
/// most.
///
/// # Errors
/// Whatever `attempt` fails with last.
pub async fn retry_on_conflict<T, F, Fut>(mut attempt: F) -> kube::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = kube::Result<T>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if is_conflict(&error) => tokio::time::sleep(PAUSE + jitter(PAUSE / 2)).await,
            done => return done,
        }
    }
    attempt().await
}

/// Whether the object was changed by somebody else in between.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "Conflict")
}

/// Whether the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "NotFound")
}

/// Whether an object of this name exists already.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether the server refuses because the namespace is being deleted.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    status.reason == "Forbidden" && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use std::cell::Cell;

    fn failure(reason: &str, code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", reason).with_code(code).boxed())
    }

    #[tokio::test]
    async fn conflicts_are_retried_five_times_and_other_errors_not_at_all() {
        for (reason, failures, attempts, succeeds) in [
            ("Conflict", 3, 4, true),
            ("Conflict", 9, 5, false),
            ("NotFound", 9, 1, false),
            ("AlreadyExists", 9, 1, false),
        ] {
            let tried = Cell::new(0);
            let outcome = retry_on_conflict(|| {
                tried.set(tried.get() + 1);
                let result = if tried.get() <= failures { Err(failure(reason, 409)) } else { Ok(()) };
                async { result }
            })
            .await;
            assert_eq!((tried.get(), outcome.is_ok()), (attempts, succeeds), "{reason} {failures}");
        }
    }
}

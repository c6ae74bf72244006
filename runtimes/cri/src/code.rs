//! Errors as gRPC statuses, and back.

use tonic::{Code, Status};
use wherry_runtimes::Error;

/// The status that tells the other side the same.
pub(crate) fn to_status(error: Error) -> Status {
    let code = match &error {
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::InvalidArgument(_) => Code::InvalidArgument,
        Error::FailedPrecondition(_) => Code::FailedPrecondition,
        Error::ResourceExhausted(_) => Code::ResourceExhausted,
        Error::PermissionDenied(_) => Code::PermissionDenied,
        Error::Unavailable(_) => Code::Unavailable,
        Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        Error::Cancelled(_) => Code::Cancelled,
        Error::Unimplemented(_) => Code::Unimplemented,
        Error::DataLoss(_) => Code::DataLoss,
        Error::Internal(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// The error that a status tells. Codes that we never send become the nearest that we have.
pub(crate) fn from_status(status: &Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => Error::NotFound(message),
        Code::AlreadyExists => Error::AlreadyExists(message),
        Code::InvalidArgument | Code::OutOfRange => Error::InvalidArgument(message),
        Code::FailedPrecondition | Code::Aborted => Error::FailedPrecondition(message),
        Code::ResourceExhausted => Error::ResourceExhausted(message),
        Code::PermissionDenied | Code::Unauthenticated => Error::PermissionDenied(message),
        Code::Unavailable => Error::Unavailable(message),
        Code::DeadlineExceeded => Error::DeadlineExceeded(message),
        Code::Cancelled => Error::Cancelled(message),
        Code::Unimplemented => Error::Unimplemented(message),
        Code::DataLoss => Error::DataLoss(message),
        Code::Ok | Code::Unknown | Code::Internal => from_words(message),
    }
}

/// What containerd (1.6 and 1.7) says without a code of its own. Source: its `pkg/cri`.
fn from_words(message: String) -> Error {
    let says = |words: &str| message.contains(words);
    if says("is reserved for") {
        Error::AlreadyExists(message)
    } else if says("no runtime for") && says("is configured") {
        Error::InvalidArgument(message)
    } else if says("container is in CONTAINER_") || says("container is already in") {
        Error::FailedPrecondition(message)
    } else if says("connection refused") || says("no such host") || says("i/o timeout") {
        Error::Unavailable(message)
    } else {
        Error::Internal(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_comes_back_as_itself() {
        let text = || "text".to_owned();
        for error in [
            Error::NotFound(text()),
            Error::AlreadyExists(text()),
            Error::InvalidArgument(text()),
            Error::FailedPrecondition(text()),
            Error::ResourceExhausted(text()),
            Error::PermissionDenied(text()),
            Error::Unavailable(text()),
            Error::DeadlineExceeded(text()),
            Error::Cancelled(text()),
            Error::Unimplemented(text()),
            Error::DataLoss(text()),
            Error::Internal(text()),
        ] {
            assert_eq!(from_status(&to_status(error.clone())), error);
        }
    }
}

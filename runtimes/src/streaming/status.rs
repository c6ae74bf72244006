//! What is said on the error channel when a command has ended.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/remotecommand`, protocol version 4.

use wherry_machinery::status::{Reason, Status, StatusCause, StatusDetails};

/// The reason of a command that ended with a code other than 0.
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
/// The cause that names the code.
const EXIT_CODE: &str = "ExitCode";

/// The `Status` of a command's exit code.
pub fn of_exit_code(code: i32) -> Status {
    if code == 0 {
        return Status { details: None, ..Status::success(StatusDetails::default()) };
    }
    let cause =
        StatusCause { reason: EXIT_CODE.to_owned(), message: code.to_string(), ..StatusCause::default() };
    Status {
        reason: NON_ZERO_EXIT_CODE.to_owned(),
        details: Some(StatusDetails { causes: vec![cause], ..StatusDetails::default() }),
        code: 0,
        ..Status::failure(
            Reason::Unknown,
            format!("command terminated with non-zero exit code: exit status {code}"),
        )
    }
}

/// The `Status` of a command that could not be run, or not to its end.
pub fn of_failure(why: impl std::fmt::Display) -> Status {
    Status::internal(format!("error executing command in container: {why}"))
}

/// The same for an attachment.
pub fn of_failed_attachment(why: impl std::fmt::Display) -> Status {
    Status::internal(format!("error attaching to container: {why}"))
}

/// As bytes of the error channel.
pub fn to_bytes(status: &Status) -> Vec<u8> {
    // A Status is strings and numbers: it always has a JSON form.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_exit_code_where_kubernetes_puts_it() {
        let failed: serde_json::Value = serde_json::from_slice(&to_bytes(&of_exit_code(3))).unwrap();
        assert_eq!(failed["status"], "Failure");
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"], serde_json::json!([{"reason": "ExitCode", "message": "3"}]));
        let good: serde_json::Value = serde_json::from_slice(&to_bytes(&of_exit_code(0))).unwrap();
        assert_eq!(good["status"], "Success");
        assert_eq!(good.get("details"), None);
        let broken: serde_json::Value = serde_json::from_slice(&to_bytes(&of_failure("no"))).unwrap();
        assert_eq!(broken["message"], "Internal error occurred: error executing command in container: no");
    }
}

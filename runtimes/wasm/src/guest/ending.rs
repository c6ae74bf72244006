//! How a guest ended, as CRI reports it.

use wasmtime_wasi::I32Exit;

/// Exit code of a guest that trapped: 128 + SIGABRT, what a native program's `abort` gives.
pub(crate) const TRAPPED: i32 = 134;

/// Exit code of a guest that was killed, for memory or at the end of its grace period: 128 + SIGKILL.
pub(crate) const KILLED: i32 = 137;

/// The longest termination message, in bytes. Source: the kubelet's limit for one container.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Exit code, reason and message of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Ending {
    /// `Completed` for 0, `Error` for any other code.
    pub(crate) fn exited(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { code, reason: reason.to_owned(), message: String::new() }
    }

    /// Stopped by force.
    pub(crate) fn killed() -> Self {
        Self::exited(KILLED)
    }

    /// Ended by a trap, a fault in the host, or a start that failed.
    pub(crate) fn trapped(message: &str) -> Self {
        Self { code: TRAPPED, reason: "Error".to_owned(), message: bounded(message) }
    }

    /// Died after it was refused memory.
    pub(crate) fn out_of_memory(limit_bytes: Option<u64>, message: &str) -> Self {
        let limit = limit_bytes.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
        let message = bounded(&format!("the guest needed more memory than its limit{limit}: {message}"));
        Self { code: KILLED, reason: "OOMKilled".to_owned(), message }
    }

    /// What the result of a guest's main function says. Memory that was refused explains any end but a good one.
    pub(crate) fn of(
        result: wasmtime::Result<Result<(), ()>>,
        memory_refused: bool,
        limit_bytes: Option<u64>,
    ) -> Self {
        let ending = match &result {
            Ok(Ok(())) => Self::exited(0),
            Ok(Err(())) => Self::exited(1),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => Self::exited(*code),
                None => Self::trapped(&format!("{error:?}")),
            },
        };
        if memory_refused && ending.code != 0 {
            return Self::out_of_memory(limit_bytes, &ending.message);
        }
        ending
    }
}

/// At most [`MAX_MESSAGE_BYTES`], cut at a character.
pub(crate) fn bounded(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_guest_becomes_code_reason_and_message() {
        let exit = |code: i32| Err(wasmtime::Error::from(I32Exit(code)));
        for (result, refused, code, reason) in [
            (Ok(Ok(())), false, 0, "Completed"),
            (Ok(Err(())), false, 1, "Error"),
            (exit(0), false, 0, "Completed"),
            (exit(42), false, 42, "Error"),
            (Err(wasmtime::Error::msg("wasm trap: unreachable")), false, 134, "Error"),
            (Err(wasmtime::Error::msg("wasm trap: unreachable")), true, 137, "OOMKilled"),
            (exit(1), true, 137, "OOMKilled"),
            (exit(0), true, 0, "Completed"),
        ] {
            let ending = Ending::of(result, refused, Some(1));
            assert_eq!((ending.code, ending.reason.as_str()), (code, reason));
        }
    }

    #[test]
    fn messages_are_bounded_and_stay_text() {
        let message = Ending::trapped(&"ä".repeat(5000)).message;
        assert_eq!(message.len(), MAX_MESSAGE_BYTES);
    }
}

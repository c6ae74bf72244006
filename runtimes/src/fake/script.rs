//! What a scripted container does.

use std::time::Duration;

use crate::Error;
use crate::log::Stream;

/// What containers of one image do.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Refuses to be created.
    pub create_error: Option<Error>,
    /// Refuses to start.
    pub start_error: Option<Error>,
    /// How long `StartContainer` takes.
    pub start_delay: Duration,
    /// Lines printed right after the start.
    pub output: Vec<(Stream, String)>,
    /// Ends by itself: how long after the start, and how. `None`: runs until stopped.
    pub exit: Option<(Duration, Exit)>,
    /// How it answers being asked to stop.
    pub on_stop: OnStop,
    /// What commands run inside it end with; each says its own words and then its input.
    pub exec_exit_code: i32,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// CRI's reason; empty: `Completed` for code 0, else `Error`.
    pub reason: String,
    /// Termination message.
    pub message: String,
}

impl Exit {
    /// An end with this code and nothing to say.
    pub fn code(code: i32) -> Self {
        Self { code, ..Self::default() }
    }

    /// The reason to report.
    pub fn reason(&self) -> &str {
        match (self.reason.as_str(), self.code) {
            ("", 0) => "Completed",
            ("", _) => "Error",
            (reason, _) => reason,
        }
    }
}

/// How a container answers being asked to stop.
#[derive(Clone, Debug)]
pub enum OnStop {
    /// Ends after a while, unless the timeout comes first.
    Exit(Duration, Exit),
    /// Pays no heed, and is killed (137) at the timeout.
    Ignore,
}

impl Default for OnStop {
    fn default() -> Self {
        Self::Exit(Duration::ZERO, Exit::code(0))
    }
}

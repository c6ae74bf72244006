//! From the bytes of an image to something that can be instantiated: engines, compiler, cache.

mod cache;
mod engine;
mod program;

pub(crate) use cache::CodeCache;
pub(crate) use engine::{Engines, Ticking};
pub(crate) use program::Program;

/// A guest that cannot be made runnable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CodeError {
    /// The bytes are not WebAssembly that this runtime takes.
    #[error("cannot compile the guest: {0}")]
    Compile(String),
    /// It exports nothing that can be run.
    #[error(
        "the guest exports none of _start (module), wasi:cli/run and wasi:http/incoming-handler (component): {0}"
    )]
    NothingToRun(String),
    /// It imports what this runtime does not offer.
    #[error("the guest cannot be linked: {0}")]
    Link(String),
    /// The compiled code could not be kept or mapped.
    #[error("cannot {action} {path}: {why}")]
    Cache {
        /// What was done.
        action: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        why: String,
    },
    /// The engine itself cannot be made on this machine.
    #[error("cannot make the WebAssembly engine: {0}")]
    Engine(String),
}

impl From<CodeError> for wherry_runtimes::Error {
    fn from(error: CodeError) -> Self {
        let text = error.to_string();
        match error {
            CodeError::Compile(_) | CodeError::NothingToRun(_) | CodeError::Link(_) => {
                Self::InvalidArgument(text)
            }
            CodeError::Cache { .. } | CodeError::Engine(_) => Self::Internal(text),
        }
    }
}

//! Container logs: reading, following and rotating files in the CRI format.

mod entry;
mod read;
mod rotate;
mod tail;

pub use entry::Entry;
pub use read::{LogOptions, LogSource, stream};
pub(crate) use rotate::rotate_all;
pub use tail::last_lines;

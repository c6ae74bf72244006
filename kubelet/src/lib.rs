//! The node agent: pod workers, probes, volumes, images, status and the node API.

mod config;
mod error;
pub mod images;
mod objects;
pub mod pod;
mod runtimes;
pub mod volumes;

pub use config::{Config, RuntimeEntry, ServerTls};
pub use error::Error;

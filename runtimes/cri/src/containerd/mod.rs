//! What containerd offers beside CRI, at the same socket: its events (CRI's came with 1.7) and a way to bring in images
//! that no registry has.

mod archive;
pub(crate) mod events;
mod import;
mod pause;
mod upload;

pub use archive::ArchiveError;
pub use import::{ImportError, Imported};
pub use pause::PAUSE_IMAGE;

use std::collections::HashMap;

use containerd_client::tonic::metadata::MetadataValue;
use containerd_client::tonic::{Request, Status};

/// The namespace in which containerd's CRI keeps everything.
pub(crate) const NAMESPACE: &str = "k8s.io";

/// A request in CRI's namespace, kept from the collector by `lease` when there is one.
fn in_namespace<T>(message: T, lease: Option<&str>) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    if let Some(lease) = lease {
        let value = MetadataValue::try_from(lease).map_err(|_| Status::invalid_argument("lease id"))?;
        metadata.insert("containerd-lease", value);
    }
    Ok(request)
}

/// Labels as the generated messages have them.
fn labels<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

//! What the types and their fields mean, in Kubernetes' own words; taken from crate `k8s-openapi` by the build.

use std::collections::HashMap;
use std::io::Read;

use super::Error;

/// By type and field (empty for the type itself): its text. JSON, gzip.
pub(super) const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.json.gz"));

/// Texts by type and field.
pub(super) type Descriptions = HashMap<String, HashMap<String, String>>;

/// Reads them.
pub(super) fn load() -> Result<Descriptions, Error> {
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(COMPRESSED).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

//! Images on disk: content-addressed blobs and one index of names.
//!
//! Used by the runtime's process and by `wherry image …` at the same time. Writers hold a lock on the store and replace
//! the index in one rename, so readers need no lock and see the store before or after a change, never between.
//! Every blob's digest is checked while it is written; every size is bounded before anything is parsed.

mod error;
mod index;
mod ingest;
mod kind;
mod layers;
mod load;
mod manifest;
mod pull;
mod reference;
mod store;

pub use error::Error;
pub use index::ImageRecord;
pub use kind::{ImageKind, kind_of};
pub use pull::{Credentials, PlainHttp, PullOptions};
pub use reference::Reference;
pub use store::ImageStore;

/// The largest WebAssembly file, in bytes. Interpreters compiled into a guest are some 20 MiB; this leaves room.
pub const MAX_WASM_BYTES: u64 = 512 << 20;

/// The largest layer, in bytes, packed or unpacked.
pub const MAX_LAYER_BYTES: u64 = 2 << 30;

/// The largest manifest, index or image configuration, in bytes. Source: registries refuse more than 4 MiB.
pub const MAX_JSON_BYTES: u64 = 4 << 20;

/// Most layers of one image. Source: overlayfs and Docker stop at 128.
pub const MAX_LAYERS: usize = 128;

//! Clients of the API: connections, shared informers, work queues, events, leader election.
//!
//! Called by every component that is not the API server itself; calls `kube` and nothing of the system's own but
//! `wherry-machinery`. A component gets a [`kube::Client`], its configuration and a [`Lifecycle`], and is a set of
//! [`Informer`]s whose handlers put keys into a [`WorkQueue`] that workers empty.
//!
//! Invariants: a handler's event is never the truth (workers read the store again); nothing here outlives its owner or
//! the [`Lifecycle`]; every buffer is bounded or holds one entry per existing object.

pub mod backoff;
pub mod connect;
pub mod events;
pub mod informer;
pub mod leader;
pub mod lifecycle;
pub mod object_key;
pub mod object_ref;
pub mod retry;
pub mod volumes;
pub mod work_queue;

pub use events::{EventRecorder, EventType};
pub use informer::{Change, Informer, Informers, Selection, Store};
pub use lifecycle::{Lifecycle, Readiness, ReadinessReport};
pub use object_key::ObjectKey;
pub use object_ref::object_ref;
pub use retry::{is_already_exists, is_conflict, is_not_found, retry_on_conflict};
pub use work_queue::{WorkQueue, run_workers};

//! The Kubernetes API over HTTP, and the only user of the store.

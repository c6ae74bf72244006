//! What this controller wrote last, so that it does not plan on a store that lags behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use wherry_client::ObjectKey;

/// After this time the store is the truth: what was written was deleted by somebody else before it was noted here.
const EXPIRY: Duration = Duration::from_secs(30);

/// The slices that were written, by service and name.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    services: Mutex<HashMap<ObjectKey, HashMap<String, Written>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Written {
    /// Created or updated, to this resource version.
    At { uid: Option<String>, resource_version: u64, since: Instant },
    /// Deleted.
    Gone,
}

impl Tracker {
    /// A slice was created or updated.
    pub(super) fn written(&self, service: &ObjectKey, slice: &EndpointSlice) {
        let uid = slice.metadata.uid.clone();
        self.note(
            service,
            name(slice),
            Written::At { uid, resource_version: resource_version(slice), since: Instant::now() },
        );
    }

    /// A slice was deleted.
    pub(super) fn deletion_begun(&self, service: &ObjectKey, slice: &str) {
        self.note(service, slice.to_owned(), Written::Gone);
    }

    /// The informer shows a slice; whether it is exactly what was written.
    pub(super) fn seen(&self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        match self.lock().get(service).and_then(|slices| slices.get(&name(slice))) {
            Some(Written::At { uid, resource_version: written, .. }) => {
                *uid == slice.metadata.uid && resource_version(slice) <= *written
            }
            _ => false,
        }
    }

    /// The informer shows that a slice is gone; whether that was this controller's doing.
    pub(super) fn deleted(&self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        let mut services = self.lock();
        services.get_mut(service).and_then(|slices| slices.remove(&name(slice))) == Some(Written::Gone)
    }

    /// Whether the informer has shown everything that was written.
    pub(super) fn is_up_to_date(&self, service: &ObjectKey, shown: &[Arc<EndpointSlice>]) -> bool {
        let services = self.lock();
        let find = |wanted: &String| shown.iter().find(|slice| slice.metadata.name.as_ref() == Some(wanted));
        services.get(service).is_none_or(|slices| {
            slices.iter().all(|(name, written)| match written {
                Written::At { resource_version: written, since, .. } => {
                    find(name).is_some_and(|slice| resource_version(slice) >= *written)
                        || since.elapsed() > EXPIRY
                }
                Written::Gone => find(name).is_none_or(|slice| slice.metadata.deletion_timestamp.is_some()),
            })
        })
    }

    /// The service is gone.
    pub(super) fn forget(&self, service: &ObjectKey) {
        self.lock().remove(service);
    }

    fn note(&self, service: &ObjectKey, slice: String, written: Written) {
        self.lock().entry(service.clone()).or_default().insert(slice, written);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, HashMap<String, Written>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn resource_version(slice: &EndpointSlice) -> u64 {
    slice.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, version: u64) -> Arc<EndpointSlice> {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some(name.to_owned());
        slice.metadata.uid = Some(format!("uid-{name}"));
        slice.metadata.resource_version = Some(version.to_string());
        Arc::new(slice)
    }

    #[test]
    fn the_store_is_up_to_date_when_it_shows_what_was_written() {
        let (tracker, service) = (Tracker::default(), ObjectKey::new("shop", "web"));
        assert!(tracker.is_up_to_date(&service, &[]));
        tracker.written(&service, &slice("a", 7));
        assert!(!tracker.is_up_to_date(&service, &[]));
        assert!(!tracker.is_up_to_date(&service, &[slice("a", 6)]));
        assert!(tracker.is_up_to_date(&service, &[slice("a", 8)]));
        assert!(tracker.seen(&service, &slice("a", 7)));
        assert!(!tracker.seen(&service, &slice("a", 8)), "somebody else wrote this");
        tracker.deletion_begun(&service, "a");
        assert!(!tracker.is_up_to_date(&service, &[slice("a", 7)]));
        assert!(tracker.deleted(&service, &slice("a", 7)));
        assert!(tracker.is_up_to_date(&service, &[]));
        assert!(!tracker.deleted(&service, &slice("a", 7)), "somebody else deleted this");
    }
}

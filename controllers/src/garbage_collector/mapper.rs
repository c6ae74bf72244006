//! From the kinds that owner references name to the resources that can be asked for.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kube::api::ApiResource;

use crate::discovery::ServedResource;

/// The resources by API group and kind.
#[derive(Debug, Default)]
pub(super) struct Mapper {
    by_kind: RwLock<HashMap<(String, String), Arc<Mapped>>>,
}

/// A resource that objects of a kind are in.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) resource: ApiResource,
    pub(super) is_namespaced: bool,
}

impl Mapper {
    /// Replaces everything by what discovery found.
    pub(super) fn replace(&self, served: &[ServedResource]) {
        let by_kind = served
            .iter()
            // Kinds like Scale belong to no resource of their own.
            .filter(|served| served.has(&["get"]))
            .map(|served| {
                let mapped =
                    Mapped { resource: served.resource.clone(), is_namespaced: served.is_namespaced };
                ((served.resource.group.clone(), served.resource.kind.clone()), Arc::new(mapped))
            })
            .collect();
        *self.by_kind.write().unwrap_or_else(PoisonError::into_inner) = by_kind;
    }

    /// The resource of a kind, in whatever version the server prefers.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<Arc<Mapped>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let by_kind = self.by_kind.read().unwrap_or_else(PoisonError::into_inner);
        by_kind.get(&(group.to_owned(), kind.to_owned())).cloned()
    }
}

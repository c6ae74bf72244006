//! What distinguishes one kind from another: a [`Strategy`] per kind, everything else is written once.
//!
//! A strategy is pure: it gets objects and the request's facts and changes or judges them. What needs other objects (an IP
//! allocator, quota, the namespace's phase) is admission or a hook of the registry.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use wherry_machinery::field::ErrorList;

/// The names under which a kind is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// The API group; empty for core.
    pub group: &'static str,
    /// The version, such as `v1`.
    pub version: &'static str,
    /// The plural, lower-case name, such as `pods`.
    pub name: &'static str,
    /// The kind, such as `Pod`.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub scope: Scope,
}

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// In namespaces.
    Namespaced,
    /// Cluster-wide.
    Cluster,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` for the core group, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.name, self.group) }
    }
}

/// What a strategy may know of the request.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// Who asks.
    pub user: String,
    /// The time of the request, in seconds since the epoch.
    pub now_unix_seconds: i64,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
}

/// How a DELETE without `gracePeriodSeconds` of its own goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Remove at once (unless finalizers stand in the way).
    Immediate,
    /// Mark with a deletion timestamp and leave the removal to whoever runs the object; a second delete with 0 removes it.
    Graceful {
        /// Seconds from now to the deletion timestamp.
        grace_period_seconds: u64,
    },
}

/// What a subresource that is a view of the object may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The object without its status.
    Main,
    /// Only `status` (and the metadata that the status endpoint may change).
    Status,
}

/// What distinguishes one kind from another. Every method but [`Strategy::resource`] has the behaviour of the plainest kind.
pub trait Strategy: Send + Sync + 'static {
    /// The names.
    fn resource(&self) -> Resource;

    /// Whether the kind has a `status` subresource (then writes to the main resource cannot touch `status`).
    fn has_status(&self) -> bool {
        false
    }

    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    fn has_generation(&self) -> bool {
        self.has_status()
    }

    /// Fill in what the client left out. Also run over patches' results and over what is read from older releases.
    fn default(&self, _object: &mut Value) {}

    /// Clear or set what a client may not choose at creation (status, generation are done by the registry).
    fn prepare_for_create(&self, _facts: &RequestFacts, _object: &mut Value) {}

    /// Carry over from `old` what an update may not change.
    fn prepare_for_update(&self, _facts: &RequestFacts, _part: Part, _object: &mut Value, _old: &Value) {}

    /// Whether a client that creates the object may set its status (Node).
    fn keeps_status_at_creation(&self) -> bool {
        false
    }

    /// Whether a deleted object stays until `spec.finalizers` is empty (Namespace).
    fn is_finalized_by_spec(&self) -> bool {
        false
    }

    /// What is wrong with the name, in Kubernetes' words; by default it must be a DNS-1123 subdomain.
    fn validate_name(&self, name: &str) -> Vec<String> {
        wherry_machinery::names::dns1123_subdomain(name)
    }

    /// Everything wrong with a new object, metadata excepted.
    fn validate(&self, _facts: &RequestFacts, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Everything wrong with a change, metadata excepted.
    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, _old: &Value) -> ErrorList {
        self.validate(facts, object)
    }

    /// `Warning` headers for a create or update.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether a PUT to an absent name creates it (`AllowCreateOnUpdate`).
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave out `resourceVersion` (`AllowUnconditionalUpdate`).
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// The fields (beside `metadata.name` and `metadata.namespace`) that field selectors may name, with their values.
    fn selectable_fields(&self, _object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }

    /// The names of those fields, so that a selector can be refused without an object at hand.
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// How to delete: `requested` is the client's `gracePeriodSeconds`.
    fn deletion(&self, _object: &Value, _requested: Option<u64>) -> Deletion {
        Deletion::Immediate
    }

    /// How long an object of this kind is kept after its last write; for ever by default.
    fn time_to_live(&self) -> Option<Duration> {
        None
    }

    /// The cells of the object's row in the Table form, in the order of the kind's columns (data/table-columns).
    /// `None`: only the name and age columns of the default table.
    fn table_cells(&self, _object: &Value, _now_unix_seconds: i64) -> Option<Vec<Value>> {
        None
    }
}

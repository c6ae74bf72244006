//! What becomes of an object, given what its owners are.

use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN, View};

/// What an owner reference was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// The owner exists.
    Solid,
    /// The owner does not exist, or another object has its name.
    Dangling,
    /// The owner exists and waits for its dependents to be deleted.
    WaitingForDependents,
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Nothing.
    Keep,
    /// The references to these owners go; others hold the object.
    DropOwners(Vec<String>),
    /// The object is deleted, so.
    Delete {
        policy: PropagationPolicy,
        /// Whether the object first stops blocking its owners: a circle of objects that wait for each other would never
        /// end.
        unblock_owners: bool,
    },
}

/// Decides about an object that is not being deleted, by its owners' uids and states and its own finalizers.
pub(super) fn decide(item: &View, owners: &[(String, OwnerState)], finalizers: &[String]) -> Decision {
    let in_state = |wanted: OwnerState| owners.iter().filter(move |(_, state)| *state == wanted);
    let lost = || owners.iter().filter(|(_, state)| *state != OwnerState::Solid).map(|(uid, _)| uid.clone());
    if owners.is_empty() {
        return Decision::Keep;
    }
    if in_state(OwnerState::Solid).count() > 0 {
        let lost: Vec<_> = lost().collect();
        return if lost.is_empty() { Decision::Keep } else { Decision::DropOwners(lost) };
    }
    if in_state(OwnerState::WaitingForDependents).count() > 0 && !item.dependents.is_empty() {
        let unblock_owners = item.dependents.iter().any(|dependent| dependent.is_deleting_dependents);
        return Decision::Delete { policy: PropagationPolicy::Foreground, unblock_owners };
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let policy = if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Decision::Delete { policy, unblock_owners: false }
}

#[cfg(test)]
mod tests {
    use super::super::graph::{Dependent, Identity};
    use super::*;

    #[test]
    fn an_object_goes_when_no_owner_holds_it() {
        let identity = |uid: &str| Identity {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "shop".into(),
            name: uid.into(),
            uid: uid.into(),
        };
        let view = |dependents: &[bool]| View {
            identity: identity("item"),
            is_deleting: false,
            is_deleting_dependents: false,
            dependents: dependents
                .iter()
                .map(|deleting| Dependent {
                    identity: identity("dependent"),
                    is_deleting_dependents: *deleting,
                    is_blocking: true,
                })
                .collect(),
        };
        let delete = |policy, unblock_owners| Decision::Delete { policy, unblock_owners };
        let drop_owners =
            |uids: &[&str]| Decision::DropOwners(uids.iter().map(|uid| (*uid).to_owned()).collect());
        use OwnerState::{Dangling, Solid, WaitingForDependents as Waiting};
        use PropagationPolicy::{Background, Foreground, Orphan};
        for (owners, dependents, finalizer, expected) in [
            (&[][..], &[][..], "", Decision::Keep),
            (&[("a", Solid)], &[], "", Decision::Keep),
            (&[("a", Solid), ("b", Dangling), ("c", Waiting)], &[], "", drop_owners(&["b", "c"])),
            (&[("a", Dangling)], &[], "", delete(Background, false)),
            (&[("a", Dangling)], &[false], "", delete(Background, false)),
            (&[("a", Dangling)], &[], "orphan", delete(Orphan, false)),
            (&[("a", Dangling)], &[], "foregroundDeletion", delete(Foreground, false)),
            (&[("a", Waiting)], &[], "", delete(Background, false)),
            (&[("a", Waiting)], &[false], "", delete(Foreground, false)),
            (&[("a", Waiting), ("b", Dangling)], &[true], "", delete(Foreground, true)),
        ] {
            let owners: Vec<_> = owners.iter().map(|(uid, state)| ((*uid).to_owned(), *state)).collect();
            let found = decide(&view(dependents), &owners, &[finalizer.to_owned()]);
            assert_eq!(found, expected, "{owners:?} {dependents:?} {finalizer}");
        }
    }
}

//! What a namespace that is being deleted still waits for, as its conditions say it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What one attempt to empty the namespace came to.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Outcome {
    /// Why the resources could not be found out.
    pub(super) discovery_error: Option<String>,
    /// What went wrong while deleting.
    pub(super) content_errors: Vec<String>,
    /// How many objects are left, by `resource.group`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// How many objects have each finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
}

impl Outcome {
    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.content_errors.is_empty() && self.remaining.is_empty()
    }

    /// What is left, in a few words.
    pub(super) fn summary(&self) -> String {
        if let Some(error) = self.discovery_error.as_ref().or(self.content_errors.first()) {
            return error.clone();
        }
        self.remaining_in_words()
    }

    fn remaining_in_words(&self) -> String {
        let each = self
            .remaining
            .iter()
            .map(|(resource, count)| format!("{resource} has {count} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    }

    fn finalizers_in_words(&self) -> String {
        let each =
            self.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The namespace's conditions after an attempt; `None` when they say so already.
pub(super) fn conditions(
    old: &[NamespaceCondition],
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let content_error = (!outcome.content_errors.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            outcome.content_errors.len(),
            outcome.content_errors.join(", ")
        )
    });
    let remaining = (!outcome.remaining.is_empty())
        .then(|| format!("Some resources are remaining: {}", outcome.remaining_in_words()));
    let finalizers = (!outcome.finalizers.is_empty()).then(|| {
        format!("Some content in the namespace has finalizers remaining: {}", outcome.finalizers_in_words())
    });
    let discovery_error = outcome
        .discovery_error
        .as_ref()
        .map(|error| format!("Discovery failed for some groups, 1 failing: {error}"));
    let wanted = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery_error,
            "DiscoveryFailed",
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            content_error,
            "ContentDeletionFailed",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            "SomeResourcesRemain",
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers,
            "SomeFinalizersRemain",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut conditions = old.to_vec();
    for (type_, trouble, reason, (fine_reason, fine_message)) in wanted {
        let (status, reason, message) = match trouble {
            Some(message) => ("True", reason, message),
            None => ("False", fine_reason, fine_message.to_owned()),
        };
        let new = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(new),
            Some(known)
                if known.status == new.status
                    && known.reason == new.reason
                    && known.message == new.message => {}
            Some(known) => {
                let since = known.last_transition_time.clone().filter(|_| known.status == new.status);
                *known =
                    NamespaceCondition { last_transition_time: since.or(new.last_transition_time), ..new };
            }
        }
    }
    (conditions != old).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    fn words(conditions: &[NamespaceCondition]) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        conditions
            .iter()
            .map(|c| format!("{}={} {}: {}", c.type_, c.status, text(&c.reason), text(&c.message)))
            .collect()
    }

    #[test]
    fn conditions_say_what_remains_and_why() {
        let outcome = Outcome {
            remaining: [("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            ..Outcome::default()
        };
        let remaining = conditions(&[], &outcome, at(0)).expect("they are new");
        assert_eq!(
            words(&remaining),
            [
                "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered",
                "NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types successfully parsed",
                "NamespaceDeletionContentFailure=False ContentDeleted: All content successfully deleted, may be waiting on finalization",
                "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
                "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        );
        assert_eq!(conditions(&remaining, &outcome, at(9)), None);
        let done = conditions(&remaining, &Outcome::default(), at(9)).expect("they change");
        assert_eq!(
            words(&done)[3],
            "NamespaceContentRemaining=False ContentRemoved: All content successfully removed"
        );
        assert_eq!(done[3].last_transition_time, Some(Time(at(9))));
        assert_eq!(done[0].last_transition_time, Some(Time(at(0))));
    }

    #[test]
    fn a_namespace_is_empty_when_nothing_remains_and_nothing_failed() {
        assert!(Outcome::default().is_empty());
        for outcome in [
            Outcome { discovery_error: Some("down".into()), ..Outcome::default() },
            Outcome { content_errors: vec!["no".into()], ..Outcome::default() },
            Outcome { remaining: [("pods.".to_owned(), 1)].into(), ..Outcome::default() },
        ] {
            assert!(!outcome.is_empty(), "{outcome:?}");
        }
    }
}

//! Which objects a filter matches, and the list item of a status: the same for every runtime.

use std::collections::BTreeMap;

use crate::{
    Container, ContainerFilter, ContainerStatsFilter, ContainerStatus, PodSandbox, PodSandboxFilter,
    PodSandboxStatsFilter, PodSandboxStatus,
};

/// An empty id matches all. Ids may be shortened, as `crictl` does.
fn id_matches(wanted: &str, id: &str) -> bool {
    id.starts_with(wanted)
}

fn labels_match(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl PodSandboxFilter {
    /// Whether all fields that are set match.
    pub fn matches(&self, status: &PodSandboxStatus) -> bool {
        id_matches(&self.id, &status.id)
            && self.state.is_none_or(|state| state == status.state)
            && labels_match(&self.label_selector, &status.labels)
    }
}

impl ContainerFilter {
    /// Whether all fields that are set match.
    pub fn matches(&self, pod_sandbox_id: &str, status: &ContainerStatus) -> bool {
        id_matches(&self.id, &status.id)
            && id_matches(&self.pod_sandbox_id, pod_sandbox_id)
            && self.state.is_none_or(|state| state == status.state)
            && labels_match(&self.label_selector, &status.labels)
    }
}

impl ContainerStatsFilter {
    /// Whether all fields that are set match.
    pub fn matches(&self, pod_sandbox_id: &str, status: &ContainerStatus) -> bool {
        id_matches(&self.id, &status.id)
            && id_matches(&self.pod_sandbox_id, pod_sandbox_id)
            && labels_match(&self.label_selector, &status.labels)
    }
}

impl PodSandboxStatsFilter {
    /// Whether all fields that are set match.
    pub fn matches(&self, status: &PodSandboxStatus) -> bool {
        id_matches(&self.id, &status.id) && labels_match(&self.label_selector, &status.labels)
    }
}

impl PodSandboxStatus {
    /// The list item of this sandbox.
    pub fn to_list_item(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: self.metadata.clone(),
            state: self.state,
            created_at: self.created_at,
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }
}

impl ContainerStatus {
    /// The list item of this container.
    pub fn to_list_item(&self, pod_sandbox_id: &str) -> Container {
        Container {
            id: self.id.clone(),
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            metadata: self.metadata.clone(),
            image: self.image.clone(),
            image_ref: self.image_ref.clone(),
            state: self.state,
            created_at: self.created_at,
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            image_id: self.image_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerState, PodSandboxState};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn sandbox_filters_combine_their_fields_by_and() {
        let status = PodSandboxStatus {
            id: "abcdef".into(),
            state: PodSandboxState::NotReady,
            labels: labels(&[("app", "web"), ("tier", "front")]),
            ..Default::default()
        };
        for (id, state, selector, expected) in [
            ("", None, vec![], true),
            ("abc", None, vec![], true),
            ("bcd", None, vec![], false),
            ("", Some(PodSandboxState::NotReady), vec![("app", "web")], true),
            ("", Some(PodSandboxState::Ready), vec![("app", "web")], false),
            ("", None, vec![("app", "web"), ("tier", "back")], false),
        ] {
            let filter = PodSandboxFilter { id: id.into(), state, label_selector: labels(&selector) };
            assert_eq!(filter.matches(&status), expected, "{filter:?}");
        }
    }

    #[test]
    fn container_filters_also_look_at_the_sandbox() {
        let status =
            ContainerStatus { id: "c1".into(), state: ContainerState::Running, ..Default::default() };
        for (sandbox, state, expected) in [
            ("", None, true),
            ("s1", Some(ContainerState::Running), true),
            ("s2", None, false),
            ("s1", Some(ContainerState::Exited), false),
        ] {
            let filter = ContainerFilter { pod_sandbox_id: sandbox.into(), state, ..Default::default() };
            assert_eq!(filter.matches("s1", &status), expected, "{filter:?}");
        }
    }
}

//! Which resources the API server has.

use kube::Client;
use kube::api::ApiResource;
use kube::client::APIGroupDiscoveryList;
use kube::core::GroupVersionKind;

/// A resource in the version that the server prefers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedResource {
    pub(crate) resource: ApiResource,
    pub(crate) is_namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl ServedResource {
    /// Whether it has all of these verbs.
    pub(crate) fn has(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|served| served == verb))
    }
}

/// All resources, each in its preferred version.
pub(crate) async fn preferred_resources(client: &Client) -> kube::Result<Vec<ServedResource>> {
    let (core, groups) =
        futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
    Ok([core, groups].into_iter().flat_map(resources_of).collect())
}

fn resources_of(list: APIGroupDiscoveryList) -> Vec<ServedResource> {
    let mut found: Vec<ServedResource> = Vec::new();
    for group in list.items {
        let group_name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for version in group.versions {
            let version_name = version.version.unwrap_or_default();
            for served in version.resources {
                let Some(plural) = served.resource else { continue };
                // Versions come in the order of preference: the first that has the resource counts.
                if found
                    .iter()
                    .any(|known| known.resource.group == group_name && known.resource.plural == plural)
                {
                    continue;
                }
                let kind = served.response_kind.and_then(|kind| kind.kind).unwrap_or_default();
                let gvk = GroupVersionKind::gvk(&group_name, &version_name, &kind);
                found.push(ServedResource {
                    resource: ApiResource::from_gvk_with_plural(&gvk, &plural),
                    is_namespaced: served.scope.as_deref() == Some("Namespaced"),
                    verbs: served.verbs,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_resource_is_taken_in_the_first_version_that_has_it() {
        let list = serde_json::from_value(json!({ "items": [{
            "metadata": { "name": "autoscaling" },
            "versions": [
                { "version": "v2", "resources": [
                    { "resource": "scalers", "scope": "Namespaced", "verbs": ["list", "delete"], "responseKind": { "group": "", "version": "", "kind": "Scaler" } },
                ] },
                { "version": "v1", "resources": [
                    { "resource": "scalers", "scope": "Namespaced", "verbs": ["list"], "responseKind": { "kind": "Scaler" } },
                    { "resource": "old", "scope": "Cluster", "verbs": ["list"], "responseKind": { "kind": "Old" } },
                ] },
            ],
        }] }))
        .expect("a discovery document");
        let found = resources_of(list);
        let summary: Vec<_> = found
            .iter()
            .map(|served| {
                (served.resource.api_version.as_str(), served.resource.plural.as_str(), served.is_namespaced)
            })
            .collect();
        assert_eq!(summary, [("autoscaling/v2", "scalers", true), ("autoscaling/v1", "old", false)]);
        assert!(found[0].has(&["list", "delete"]) && !found[1].has(&["delete"]));
    }
}

//! What the status of a pod may say. Source: `ValidatePodStatusUpdate` of `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::{annotations, update};
use crate::kinds::fields::{
    NEGATIVE, dns_subdomain, duplicate_printed, immutable, invalid_printed, ip, qualified_name,
};
use crate::kinds::json::{integer, list, text};

/// Everything wrong with a change of a pod's status.
pub(crate) fn validate(pod: &Value, old: &Value) -> ErrorList {
    let path = Path::new("status");
    let metadata = Path::new("metadata");
    let (new_annotations, old_annotations) = (update::annotations_of(pod), update::annotations_of(old));
    let mut errors =
        annotations::validate_update(&new_annotations, &old_annotations, &metadata.child("annotations"));
    for (i, condition) in list(pod, "/status/conditions").iter().enumerate() {
        let kind = text(condition, "/type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            // Kubernetes reports the path so.
            errors.extend(qualified_name(kind, &metadata.child("conditions").index(i).child("Type")));
        }
    }
    if text(pod, "/spec/nodeName") != text(old, "/spec/nodeName") {
        errors.push(Error::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(pod, "/status/nominatedNodeName");
    if !nominated.is_empty() && nominated != text(old, "/status/nominatedNodeName") {
        errors.extend(dns_subdomain(nominated, &path.child("nominatedNodeName")));
    }
    let class = |pod: &Value| Value::from(text(pod, "/status/qosClass"));
    errors.extend(immutable(Some(&class(pod)), Some(&class(old)), &path.child("qosClass")));
    let restart_policy = text(old, "/spec/restartPolicy");
    errors.extend(transitions(pod, old, "containerStatuses", restart_policy));
    errors.extend(transitions(pod, old, "initContainerStatuses", restart_policy));
    errors.extend(transitions(pod, old, "ephemeralContainerStatuses", "Never"));
    errors.extend(claims(pod, &path.child("resourceClaimStatuses")));
    errors.extend(addresses(pod, "podIPs", &path.child("podIPs")));
    errors.extend(host_addresses(pod, &path.child("hostIPs")));
    for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        errors.extend(users(pod, field, &path.child(field)));
    }
    errors.extend(observed_generation(pod, &path));
    errors
}

/// A container that ended stays ended, unless it is to be started again.
fn transitions(pod: &Value, old: &Value, field: &str, restart_policy: &str) -> ErrorList {
    if restart_policy == "Always" {
        return ErrorList::new();
    }
    let pointer = format!("/status/{field}");
    let new = list(pod, &pointer);
    let mut errors = ErrorList::new();
    for (i, before) in list(old, &pointer).iter().enumerate() {
        let name = text(before, "/name");
        let Some(terminated) = before.pointer("/state/terminated").filter(|state| !state.is_null()) else {
            continue;
        };
        if integer(terminated, "/exitCode") != 0 && restart_policy == "OnFailure" || has_own_policy(old, name)
        {
            continue;
        }
        let left = |after: &&Value| {
            text(after, "/name") == name && after.pointer("/state/terminated").is_none_or(Value::is_null)
        };
        for _ in new.iter().filter(left) {
            let path = Path::new("status").child(field).index(i).child("state");
            errors.push(Error::forbidden(&path, "may not be transitioned to non-terminated state"));
        }
    }
    errors
}

/// Whether a container may be started again by a restart policy of its own.
fn has_own_policy(pod: &Value, name: &str) -> bool {
    ["/spec/containers", "/spec/initContainers"].iter().flat_map(|pointer| list(pod, pointer)).any(
        |container| {
            text(container, "/name") == name
                && (matches!(text(container, "/restartPolicy"), "Always" | "OnFailure")
                    || !list(container, "/restartPolicyRules").is_empty())
        },
    )
}

fn claims(pod: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    let known: BTreeSet<&str> =
        list(pod, "/spec/resourceClaims").iter().map(|claim| text(claim, "/name")).collect();
    for (i, status) in list(pod, "/status/resourceClaimStatuses").iter().enumerate() {
        let path = path.index(i).child("name");
        let name = text(status, "/name");
        if !known.contains(name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&path, name, detail));
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path, name));
        }
        if let Some(claim) = status.get("resourceClaimName").and_then(Value::as_str) {
            errors.extend(dns_subdomain(claim, &path));
        }
    }
    errors
}

/// At most one address of each family.
fn addresses(pod: &Value, field: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let entries = list(pod, &format!("/status/{field}"));
    let ips: Vec<&str> = entries.iter().map(|entry| text(entry, "/ip")).collect();
    for (i, address) in ips.iter().enumerate() {
        errors.extend(ip(address, &path.index(i)));
    }
    if ips.len() > 1 {
        let family =
            |address: &&str| names::parse_ip(address).map(|address| matches!(address, IpAddr::V4(_)));
        let families: BTreeSet<_> = ips.iter().filter_map(family).collect();
        let printed = || {
            let items: Vec<String> =
                ips.iter().map(|address| format!("{{\"IP\":{}}}", json!(address))).collect();
            format!("[{}]", items.join(","))
        };
        if families.len() < 2 || ips.len() > 2 {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(invalid_printed(path, &printed(), detail));
        }
        let mut seen = BTreeSet::new();
        for (i, address) in ips.iter().enumerate() {
            if !seen.insert(address) {
                let printed = format!("{{\"IP\":{}}}", json!(address));
                errors.push(duplicate_printed(&path.index(i), &printed));
            }
        }
    }
    errors
}

fn host_addresses(pod: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(first) = list(pod, "/status/hostIPs").first() {
        let first = text(first, "/ip");
        if first != text(pod, "/status/hostIP") {
            errors.push(Error::invalid(&path.index(0).child("ip"), first, "must be equal to `hostIP`"));
        }
    }
    errors.extend(addresses(pod, "hostIPs", path));
    errors
}

fn users(pod: &Value, field: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let is_windows = text(pod, "/spec/os/name") == "windows";
    for (i, status) in list(pod, &format!("/status/{field}")).iter().enumerate() {
        let path = path.index(i).child("linux");
        let Some(user) = status.pointer("/user/linux").filter(|user| !user.is_null()) else { continue };
        if is_windows {
            errors.push(Error::forbidden(&path, "cannot be set for a windows pod"));
            continue;
        }
        for field in ["uid", "gid"] {
            let id = integer(user, &format!("/{field}"));
            errors.extend(names::user_id(id).iter().map(|text| Error::invalid(&path.child(field), id, text)));
        }
        for (j, group) in list(user, "/supplementalGroups").iter().filter_map(Value::as_i64).enumerate() {
            let path = path.child("supplementalGroups").index(j);
            errors.extend(names::user_id(group).iter().map(|text| Error::invalid(&path, group, text)));
        }
    }
    errors
}

fn observed_generation(pod: &Value, path: &Path) -> ErrorList {
    let observed = integer(pod, "/status/observedGeneration");
    if observed < 0 {
        vec![Error::invalid(&path.child("observedGeneration"), observed, NEGATIVE)]
    } else {
        ErrorList::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn a_container_that_ended_stays_ended() {
        let old = json!({"spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": 1}}}]}});
        let new = json!({"spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": [
            {"name": "c", "state": {"running": {}}}]}});
        assert_eq!(
            messages(&validate(&new, &old)),
            ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
        );
        let mut restarting = old.clone();
        restarting["spec"]["restartPolicy"] = "OnFailure".into();
        assert!(validate(&new, &restarting).is_empty());
    }

    #[test]
    fn the_quality_class_and_the_node_are_fixed() {
        let old = json!({"spec": {"nodeName": "a"}, "status": {"qosClass": "BestEffort"}});
        let new = json!({"spec": {"nodeName": "b"}, "status": {"qosClass": "Guaranteed"}});
        assert_eq!(
            messages(&validate(&new, &old)),
            [
                "status.nodeName: Forbidden: may not be changed directly",
                r#"status.qosClass: Invalid value: "Guaranteed": field is immutable"#,
            ]
        );
    }

    #[test]
    fn a_pod_has_one_address_of_each_family() {
        let pod = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}});
        assert_eq!(
            messages(&validate(&pod, &json!({}))),
            [
                r#"status.podIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more than one IP for each IP family"#
            ]
        );
    }
}

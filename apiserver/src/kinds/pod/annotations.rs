//! Annotations of pods that mean something to Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::spec::security_contexts;
use crate::kinds::fields::local_path;

/// The annotation of a pod that stands for a static pod of a node.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation that says how much the loss of a pod costs.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The annotation with a pod's seccomp profile, before there was a field.
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// The prefix of those with its containers' profiles.
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// The prefix of annotations with containers' AppArmor profiles, before there was a field.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

type Annotations = BTreeMap<String, String>;

/// Everything wrong with a pod's annotations.
pub(crate) fn validate(annotations: &Annotations, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(value) = annotations.get(MIRROR)
        && spec.node_name.as_deref().unwrap_or_default().is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(&path.key(MIRROR), value.as_str(), detail));
    }
    if let Some(cost) = annotations.get(DELETION_COST)
        && !is_cost(cost)
    {
        errors.push(Error::invalid(&path.key(DELETION_COST), cost.as_str(), "must be a 32bit integer"));
    }
    for (key, profile) in annotations {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            errors.extend(seccomp(profile, &path.child(key)));
        }
    }
    for (key, profile) in annotations {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let path = path.key(key);
        if !container_names(spec).any(|name| name == container) {
            errors.push(Error::invalid(&path, container, "container not found"));
        }
        if !matches!(profile.as_str(), "" | "runtime/default" | "unconfined")
            && !profile.starts_with("localhost/")
        {
            let detail = format!("invalid AppArmor profile name: {profile:?}");
            errors.push(Error::invalid(&path, profile.as_str(), &detail));
        }
    }
    errors
}

/// A 32-bit number without leading zeros or plus sign.
fn is_cost(cost: &str) -> bool {
    let digits = cost.strip_prefix('-').unwrap_or(cost);
    let canonical = digits == "0" && cost == "0" || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    canonical && cost.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, path: &Path) -> ErrorList {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => ErrorList::new(),
        _ => match profile.strip_prefix("localhost/") {
            Some(file) => local_path(file, path),
            None => vec![Error::invalid(path, profile, "must be a valid seccomp profile")],
        },
    }
}

fn container_names(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let init = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
    let regular = spec.containers.iter().map(|container| container.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str());
    init.chain(regular).chain(ephemeral)
}

/// Where both the old annotation and the field are given, they must say the same.
pub(crate) fn match_fields(annotations: &Annotations, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pod = spec.security_context.as_ref();
    let context_path = path.child("securityContext");
    if let Some(profile) = pod.and_then(|context| context.seccomp_profile.as_ref()) {
        let annotation = annotations.get(SECCOMP_POD);
        errors.extend(
            annotation
                .and_then(|text| seccomp_mismatch(text, profile, &context_path.child("seccompProfile"))),
        );
    }
    let containers = || container_names(spec).zip(security_contexts(spec, path));
    for (name, (context, path)) in containers() {
        let profile = context.and_then(|context| context.seccomp_profile.as_ref());
        let annotation = annotations.get(&format!("{SECCOMP_CONTAINER}{name}"));
        if let (Some(profile), Some(text)) = (profile, annotation) {
            errors.extend(seccomp_mismatch(
                text,
                profile,
                &path.child("securityContext").child("seccompProfile"),
            ));
        }
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors;
    }
    let of_pod = pod.and_then(|context| context.app_armor_profile.as_ref());
    for (name, (context, path)) in containers() {
        let profile = context.and_then(|context| context.app_armor_profile.as_ref()).or(of_pod);
        let annotation = annotations.get(&format!("{APP_ARMOR}{name}"));
        if let (Some(profile), Some(text)) = (profile, annotation) {
            errors.extend(app_armor_mismatch(
                text,
                profile,
                &path.child("securityContext").child("appArmorProfile"),
            ));
        }
    }
    errors
}

fn seccomp_mismatch(text: &str, profile: &SeccompProfile, path: &Path) -> Option<Error> {
    let wrong_type =
        || Some(Error::forbidden(&path.child("type"), "seccomp type in annotation and field must match"));
    match profile.type_.as_str() {
        "Unconfined" if text != "unconfined" => wrong_type(),
        "RuntimeDefault" if !matches!(text, "runtime/default" | "docker/default") => wrong_type(),
        "Localhost" => match text.strip_prefix("localhost/") {
            None => wrong_type(),
            file if file == profile.localhost_profile.as_deref() => None,
            _ => {
                let detail = "seccomp profile in annotation and field must match";
                Some(Error::forbidden(&path.child("localhostProfile"), detail))
            }
        },
        _ => None,
    }
}

fn app_armor_mismatch(text: &str, profile: &AppArmorProfile, path: &Path) -> Option<Error> {
    let wrong_type =
        || Some(Error::forbidden(&path.child("type"), "apparmor type in annotation and field must match"));
    match profile.type_.as_str() {
        "Unconfined" if text != "unconfined" => wrong_type(),
        "RuntimeDefault" if text != "runtime/default" => wrong_type(),
        "Localhost" => match text.strip_prefix("localhost/") {
            None => wrong_type(),
            name if name == profile.localhost_profile.as_deref() => None,
            _ => {
                let detail = "apparmor profile in annotation and field must match";
                Some(Error::forbidden(&path.child("localhostProfile"), detail))
            }
        },
        _ => None,
    }
}

/// What an update may not do to annotations that the node has acted upon.
pub(crate) fn validate_update(new: &Annotations, old: &Annotations, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut refuse = |key: &str, verb: &str| {
        if key.starts_with(APP_ARMOR) {
            errors.push(Error::forbidden(&path.key(key), &format!("may not {verb} AppArmor annotations")));
        }
        if key == MIRROR {
            errors.push(Error::forbidden(&path.key(key), &format!("may not {verb} mirror pod annotation")));
        }
    };
    for (key, value) in old {
        if new.get(key) != Some(value) {
            refuse(key, "remove or update");
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        refuse(key, "add");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn a_mirror_pod_has_a_node_and_stays_one() {
        let path = Path::new("metadata").child("annotations");
        let mirror = Annotations::from([(MIRROR.to_owned(), "x".to_owned())]);
        assert_eq!(
            messages(&validate(&mirror, &PodSpec::default(), &path)),
            [
                r#"metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set"#
            ]
        );
        assert_eq!(
            messages(&validate_update(&Annotations::new(), &mirror, &path)),
            [
                "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
            ]
        );
    }

    #[test]
    fn a_deletion_cost_is_a_plain_number() {
        for (cost, valid) in
            [("0", true), ("-7", true), ("+1", false), ("01", false), ("2147483648", false), ("x", false)]
        {
            assert_eq!(is_cost(cost), valid, "{cost}");
        }
    }
}

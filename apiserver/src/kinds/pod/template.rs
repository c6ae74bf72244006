//! Templates of pods, in Deployments and ReplicaSets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::selector::Selector;

use super::annotations;
use super::spec::{self, Context};
use crate::kinds::fields;

/// Everything wrong with a template.
pub(crate) fn validate(template: &PodTemplateSpec, path: &Path) -> ErrorList {
    let nothing = BTreeMap::new();
    let metadata = template.metadata.clone().unwrap_or_default();
    let own = metadata.annotations.as_ref().unwrap_or(&nothing);
    let pod = template.spec.clone().unwrap_or_default();
    let annotations_path = path.child("annotations");
    let mut errors = fields::labels(metadata.labels.as_ref().unwrap_or(&nothing), &path.child("labels"));
    errors.extend(fields::annotations(own, &annotations_path));
    errors.extend(annotations::validate(own, &pod, &annotations_path));
    errors.extend(spec::validate(&pod, &Context::template(), &path.child("spec")));
    errors.extend(annotations::match_fields(own, &pod, &path.child("spec")));
    if !pod.ephemeral_containers.as_deref().unwrap_or_default().is_empty() {
        let path = path.child("spec").child("ephemeralContainers");
        errors.push(Error::forbidden(&path, "ephemeral containers not allowed in pod template"));
    }
    errors
}

/// Everything wrong with the template of pods that run for ever and are found by a selector.
pub(crate) fn validate_selected(
    template: &PodTemplateSpec,
    selector: &Selector,
    owner: &str,
    path: &Path,
) -> ErrorList {
    let mut errors = selected(template, selector, path);
    errors.extend(validate(template, path));
    errors.extend(runs_for_ever(template, owner, path));
    errors
}

/// The same without the pod's own specification, which is whole only with what its owner adds.
pub(crate) fn validate_selected_partly(
    template: &PodTemplateSpec,
    selector: &Selector,
    owner: &str,
    path: &Path,
) -> ErrorList {
    let mut errors = selected(template, selector, path);
    let metadata = template.metadata.clone().unwrap_or_default();
    errors.extend(fields::labels(&metadata.labels.unwrap_or_default(), &path.child("labels")));
    errors.extend(fields::annotations(&metadata.annotations.unwrap_or_default(), &path.child("annotations")));
    errors.extend(runs_for_ever(template, owner, path));
    errors
}

fn selected(template: &PodTemplateSpec, selector: &Selector, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    if !selector.is_everything() && !selector.matches(labels.as_ref().unwrap_or(&BTreeMap::new())) {
        let path = path.child("metadata").child("labels");
        errors.push(Error::invalid(&path, json!(labels), "`selector` does not match template `labels`"));
    }
    errors
}

fn runs_for_ever(template: &PodTemplateSpec, owner: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pod = template.spec.as_ref();
    let policy = pod.and_then(|pod| pod.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        let path = path.child("spec").child("restartPolicy");
        errors.push(Error::not_supported(&path, policy, &["Always"]));
    }
    if pod.is_some_and(|pod| pod.active_deadline_seconds.is_some()) {
        let path = path.child("spec").child("activeDeadlineSeconds");
        errors.push(Error::forbidden(&path, &format!("activeDeadlineSeconds in {owner} is not Supported")));
    }
    errors
}

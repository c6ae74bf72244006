//! Environment variables of containers, and references to fields and resources.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::resources;
use crate::kinds::fields::{invalid_each, local_non_reserved_path, qualified_name, s};

/// The fields that an environment variable can take its value from.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields that a file of a volume can hold.
pub(crate) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// The resources that a variable or a file can hold, beside huge pages.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Variables given one by one.
pub(crate) fn variables(variables: &[EnvVar], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        if variable.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            errors.extend(invalid_each(
                &path.child("name"),
                &variable.name,
                names::env_var_name(&variable.name),
            ));
        }
        if let Some(source) = &variable.value_from {
            errors.extend(value_source(source, s(&variable.value), &path.child("valueFrom")));
        }
    }
    errors
}

fn value_source(source: &EnvVarSource, value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut sources = 0;
    if let Some(reference) = &source.field_ref {
        sources += 1;
        errors.extend(field_ref(reference, ENV_FIELDS, &path.child("fieldRef")));
    }
    if let Some(reference) = &source.resource_field_ref {
        sources += 1;
        errors.extend(resource_ref(reference, Holder::Container, &path.child("resourceFieldRef")));
    }
    if let Some(reference) = &source.config_map_key_ref {
        sources += 1;
        errors.extend(key_ref(&reference.name, &reference.key, &path.child("configMapKeyRef")));
    }
    if let Some(reference) = &source.secret_key_ref {
        sources += 1;
        errors.extend(key_ref(&reference.name, &reference.key, &path.child("secretKeyRef")));
    }
    if let Some(reference) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        if reference.key.is_empty() {
            errors.push(Error::required(&path.child("key"), ""));
        } else {
            errors.extend(invalid_each(
                &path.child("key"),
                &reference.key,
                names::env_var_name(&reference.key),
            ));
        }
        if reference.volume_name.is_empty() {
            errors.push(Error::required(&path.child("volumeName"), ""));
        }
        if reference.path.is_empty() {
            errors.push(Error::required(&path.child("path"), ""));
        } else {
            errors.extend(local_non_reserved_path(&reference.path, &path.child("path")));
        }
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(Error::invalid(path, "", detail));
    } else if !value.is_empty() {
        errors.push(Error::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(Error::invalid(path, "", "may not have more than one field specified at a time"));
    }
    errors
}

fn key_ref(name: &str, key: &str, path: &Path) -> ErrorList {
    let mut errors = invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
    if key.is_empty() {
        errors.push(Error::required(&path.child("key"), ""));
    } else {
        errors.extend(invalid_each(&path.child("key"), key, names::config_map_key(key)));
    }
    errors
}

/// Variables taken over from whole ConfigMaps and Secrets.
pub(crate) fn sources(sources: &[EnvFromSource], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, source) in sources.iter().enumerate() {
        let item = path.index(i);
        let prefix = s(&source.prefix);
        if !prefix.is_empty() {
            errors.extend(invalid_each(&item.child("prefix"), prefix, names::env_var_name(prefix)));
        }
        let config_map = source.config_map_ref.as_ref().map(|reference| ("configMapRef", &reference.name));
        let secret = source.secret_ref.as_ref().map(|reference| ("secretRef", &reference.name));
        for (field, name) in config_map.into_iter().chain(secret) {
            let path = item.child(field).child("name");
            if name.is_empty() {
                errors.push(Error::required(&path, ""));
            } else {
                errors.extend(invalid_each(
                    &path,
                    name,
                    names::dns1123_subdomain(&names::mask_trailing_dash(name)),
                ));
            }
        }
        // Kubernetes reports these at the list.
        match (config_map, secret) {
            (None, None) => {
                errors.push(Error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
            }
            (Some(_), Some(_)) => {
                errors.push(Error::invalid(path, "", "may not have more than one field specified at a time"));
            }
            _ => {}
        }
    }
    errors
}

/// A field of the pod, possibly one entry of a map.
pub(crate) fn field_ref(reference: &ObjectFieldSelector, supported: &[&str], path: &Path) -> ErrorList {
    if s(&reference.api_version).is_empty() {
        return vec![Error::required(&path.child("apiVersion"), "")];
    }
    let field = reference.field_path.as_str();
    if field.is_empty() {
        return vec![Error::required(&path.child("fieldPath"), "")];
    }
    if let Some(problem) = unconvertible(s(&reference.api_version), field) {
        let detail = format!("error converting fieldPath: {problem}");
        return vec![Error::invalid(&path.child("fieldPath"), field, &detail)];
    }
    match subscript(field) {
        Some(("metadata.annotations", key)) => qualified_name(&key.to_lowercase(), path),
        Some(("metadata.labels", key)) => qualified_name(key, path),
        Some((map, _)) => vec![Error::invalid(path, map, "does not support subscript")],
        None if supported.contains(&field) => ErrorList::new(),
        None => vec![Error::not_supported(&path.child("fieldPath"), field, supported)],
    }
}

/// `metadata.labels['a']` as `metadata.labels` and `a`.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (map, key) = field.strip_suffix("']")?.split_once("['")?;
    (!map.is_empty()).then_some((map, key))
}

/// Why a field cannot be a downward field at all.
fn unconvertible(version: &str, field: &str) -> Option<String> {
    if version != "v1" {
        return Some(format!("unsupported pod version: {version}"));
    }
    if let Some((map, _)) = subscript(field) {
        let known = matches!(map, "metadata.annotations" | "metadata.labels");
        return (!known).then(|| format!("field label does not support subscript: {field}"));
    }
    let known = matches!(
        field,
        "metadata.annotations"
            | "metadata.labels"
            | "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.serviceAccountName"
            | "spec.schedulerName"
            | "spec.host"
            | "status.phase"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs"
    );
    (!known).then(|| format!("field label not supported: {field}"))
}

/// Where a reference to a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// In a container, whose own resources are meant by default.
    Container,
    /// In a volume, which must name the container.
    Volume,
}

/// A limit or request of a container.
pub(crate) fn resource_ref(reference: &ResourceFieldSelector, holder: Holder, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let resource = reference.resource.as_str();
    let is_huge_pages =
        resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if holder == Holder::Volume && s(&reference.container_name).is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !is_huge_pages {
        errors.push(Error::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    errors.extend(resources::divisor(resource, reference.divisor.as_ref(), path));
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn names_and_sources_of_variables_are_checked() {
        let table = [
            (
                json!([{"name": "a b=c"}, {"name": ""}]),
                vec![
                    r#"env[0].name: Invalid value: "a b=c": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
                    "env[1].name: Required value",
                ],
            ),
            (
                json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}]),
                vec![
                    r#"env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
                ],
            ),
            (
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['a']"}}}]),
                vec![],
            ),
            (
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.nothing"}}}]),
                vec![
                    r#"env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.nothing": error converting fieldPath: field label not supported: metadata.nothing"#,
                ],
            ),
            (
                json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3m"}}}]),
                vec![
                    r#"env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#,
                ],
            ),
        ];
        for (value, expected) in table {
            let value: Vec<EnvVar> = serde_json::from_value(value).unwrap();
            assert_eq!(messages(&variables(&value, &Path::new("env"))), expected);
        }
    }
}

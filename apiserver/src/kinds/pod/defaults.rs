//! What a pod's author may leave out. Source: `SetDefaults_*` of `k8s.io/kubernetes/pkg/apis/core/v1`.

use serde_json::{Value, json};

use super::resources;
use crate::kinds::json::{
    default_value, default_zero, each, flag, integer, is_absent, is_zero, map_at, remove, set, text, within,
};

/// The fields of a Volume that are not sources.
const VOLUME_NAME: &str = "name";
/// The file mode 0644 of files in a volume.
const DEFAULT_MODE: i32 = 0o644;

/// Everything a Pod gets that its author left out.
pub(crate) fn default_pod(object: &mut Value) {
    let Some(spec) = map_at(object, "spec") else { return };
    let host_network = flag(spec, "/hostNetwork");
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            within(container, "resources", resources::default_requests_to_limits);
            if host_network {
                each(container, "ports", |port| {
                    let container_port = integer(port, "/containerPort");
                    default_zero(port, "hostPort", container_port);
                });
            }
        });
    }
    default_value(spec, "enableServiceLinks", true);
    default_pod_spec(spec);
    resources::default_pod_level(spec);
    sync_deprecated_service_account(spec);
}

/// Everything a pod template gets that its author left out.
pub(crate) fn default_template(template: &mut Value) {
    if let Some(spec) = map_at(template, "spec") {
        default_pod_spec(spec);
        sync_deprecated_service_account(spec);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always served.
fn sync_deprecated_service_account(spec: &mut Value) {
    let old = text(spec, "/serviceAccount").to_owned();
    default_zero(spec, "serviceAccountName", old);
    let name = text(spec, "/serviceAccountName").to_owned();
    if name.is_empty() {
        remove(spec, "serviceAccount");
        remove(spec, "serviceAccountName");
    } else {
        set(spec, "serviceAccount", name);
    }
}

/// Defaults of a pod spec wherever it stands.
pub(crate) fn default_pod_spec(spec: &mut Value) {
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    default_value(spec, "securityContext", json!({}));
    default_value(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    each(spec, "volumes", default_volume);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list, default_container);
    }
    within(spec, "overhead", resources::canonicalize_list);
    within(spec, "resources", resources::canonicalize);
}

fn default_container(container: &mut Value) {
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    let image = text(container, "/image").to_owned();
    default_zero(container, "imagePullPolicy", default_pull_policy(&image));
    default_value(container, "resources", json!({}));
    within(container, "resources", resources::canonicalize);
    each(container, "ports", |port| default_zero(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        within(variable, "valueFrom", |source| {
            default_field_ref(source);
            within(source, "resourceFieldRef", default_divisor);
            within(source, "fileKeyRef", |reference| default_value(reference, "optional", false));
        });
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        within(container, probe, default_probe);
    }
    within(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            within(lifecycle, hook, |handler| within(handler, "httpGet", default_http_get));
        }
    });
}

fn default_probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    within(probe, "httpGet", default_http_get);
    within(probe, "grpc", |grpc| default_value(grpc, "service", ""));
}

fn default_http_get(action: &mut Value) {
    default_zero(action, "path", "/");
    default_zero(action, "scheme", "HTTP");
}

fn default_volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_some_and(|map| map.iter().any(|(key, value)| key != VOLUME_NAME && !value.is_null()));
    if !has_source {
        set(volume, "emptyDir", json!({}));
    }
    within(volume, "emptyDir", |source| resources::canonicalize_field(source, "sizeLimit"));
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        within(volume, source, |source| default_value(source, "defaultMode", DEFAULT_MODE));
    }
    within(volume, "downwardAPI", |source| each(source, "items", default_downward_file));
    within(volume, "projected", |source| each(source, "sources", default_projection));
    within(volume, "image", |source| {
        let reference = text(source, "/reference").to_owned();
        default_zero(source, "pullPolicy", default_pull_policy(&reference));
    });
    volume_source(volume);
    within(volume, "ephemeral", |source| {
        within(source, "volumeClaimTemplate", |template| {
            if is_absent(template.get("metadata")) {
                set(template, "metadata", json!({}));
            }
            within(template, "spec", crate::kinds::persistent_volume_claim::default_spec);
        });
    });
}

fn default_projection(projection: &mut Value) {
    within(projection, "serviceAccountToken", |token| default_value(token, "expirationSeconds", 3600));
    within(projection, "downwardAPI", |source| each(source, "items", default_downward_file));
    within(projection, "podCertificate", |source| default_value(source, "maxExpirationSeconds", 86_400));
}

fn default_downward_file(file: &mut Value) {
    default_field_ref(file);
    within(file, "resourceFieldRef", default_divisor);
}

fn default_field_ref(source: &mut Value) {
    within(source, "fieldRef", |reference| default_zero(reference, "apiVersion", "v1"));
}

fn default_divisor(reference: &mut Value) {
    if is_zero(reference.get("divisor")) {
        set(reference, "divisor", "0");
    } else {
        resources::canonicalize_field(reference, "divisor");
    }
}

/// `Always` for the tag `latest`, which is also the tag of an image named without tag and digest.
fn default_pull_policy(image: &str) -> &'static str {
    let (name, has_digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if has_digest => "IfNotPresent",
        None => "Always",
    }
}

/// Defaults of the sources that pods and persistent volumes share.
pub(crate) fn volume_source(volume: &mut Value) {
    within(volume, "hostPath", |source| default_value(source, "type", ""));
    within(volume, "iscsi", |source| default_zero(source, "iscsiInterface", "default"));
    within(volume, "rbd", |source| {
        default_zero(source, "pool", "rbd");
        default_zero(source, "user", "admin");
        default_zero(source, "keyring", "/etc/ceph/keyring");
    });
    within(volume, "azureDisk", |source| {
        default_value(source, "cachingMode", "ReadWrite");
        default_value(source, "kind", "Shared");
        default_value(source, "fsType", "ext4");
        default_value(source, "readOnly", false);
    });
    within(volume, "scaleIO", |source| {
        default_zero(source, "storageMode", "ThinProvisioned");
        default_zero(source, "fsType", "xfs");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_the_latest_tag_are_always_pulled() {
        let table = [
            ("reg.example/y:latest", "Always"),
            ("web", "Always"),
            ("reg.example:5000/web", "Always"),
            ("reg.example/app:1", "IfNotPresent"),
            ("reg.example/z:3@sha256:aa", "IfNotPresent"),
            ("reg.example/z@sha256:aa", "IfNotPresent"),
        ];
        for (image, policy) in table {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_minimal_pod_is_completed() {
        let mut pod = json!({"spec": {"containers": [{"name": "main", "image": "reg.example/app:1"}]}});
        default_pod(&mut pod);
        assert_eq!(
            pod["spec"],
            json!({
                "containers": [{
                    "name": "main", "image": "reg.example/app:1", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            })
        );
    }

    #[test]
    fn the_host_network_takes_the_container_ports() {
        let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 7000}]}]}});
        default_pod(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["ports"],
            json!([{"containerPort": 7000, "hostPort": 7000, "protocol": "TCP"}])
        );
    }

    #[test]
    fn probes_get_their_numbers() {
        let mut container = json!({"name": "a", "image": "x", "livenessProbe": {"httpGet": {"port": 8080}},
            "readinessProbe": {"tcpSocket": {"port": "dns"}, "periodSeconds": 3}, "startupProbe": {"grpc": {"port": 9}}});
        default_container(&mut container);
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["readinessProbe"]["periodSeconds"], 3);
        assert_eq!(container["startupProbe"]["grpc"], json!({"port": 9, "service": ""}));
    }

    #[test]
    fn volumes_get_modes_and_the_empty_directory() {
        let table = [
            (json!({"name": "none"}), json!({"name": "none", "emptyDir": {}})),
            (
                json!({"name": "c", "configMap": {"name": "some"}}),
                json!({"name": "c", "configMap": {"name": "some", "defaultMode": 420}}),
            ),
            (
                json!({"name": "h", "hostPath": {"path": "/srv"}}),
                json!({"name": "h", "hostPath": {"path": "/srv", "type": ""}}),
            ),
            (
                json!({"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "tok"}}, {"secret": {"name": "q"}}]}}),
                json!({"name": "p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "tok", "expirationSeconds": 3600}}, {"secret": {"name": "q"}}]}}),
            ),
        ];
        for (mut volume, expected) in table {
            default_volume(&mut volume);
            assert_eq!(volume, expected);
        }
    }
}

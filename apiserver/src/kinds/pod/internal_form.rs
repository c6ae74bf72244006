//! A pod spec as Kubernetes prints it in errors: its own Go structs as JSON, every field in its order, with Go's names.
//!
//! Two specs are equal exactly if they print the same, so this is also how an update is judged.
//!
//! Source: the field names and their order in `k8s.io/kubernetes/pkg/apis/core`.

use std::fmt::Write;

use serde_json::{Map, Value};

/// How a field prints, and how when it is not set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Text; empty by default.
    Text,
    /// A flag; false by default.
    Flag,
    /// A number; zero by default.
    Number,
    /// A text, flag, number or map that may be absent.
    Optional,
    /// A struct of a type that may be absent.
    Pointer(&'static str),
    /// A struct of a type, there even if empty.
    Inside(&'static str),
    /// A list of structs of a type.
    List(&'static str),
    /// Anything else that may be absent, with Go's capital letters.
    Other,
}

use Form::{Flag, Inside, List, Number, Optional, Other, Pointer, Text};

/// Go's name, the name in JSON, the form.
pub(super) type Field = (&'static str, &'static str, Form);

const CONTAINER: &[Field] = &[
    ("Name", "name", Text),
    ("Image", "image", Text),
    ("Command", "command", Optional),
    ("Args", "args", Optional),
    ("WorkingDir", "workingDir", Text),
    ("Ports", "ports", List("ContainerPort")),
    ("EnvFrom", "envFrom", List("EnvFromSource")),
    ("Env", "env", List("EnvVar")),
    ("Resources", "resources", Inside("ResourceRequirements")),
    ("ResizePolicy", "resizePolicy", List("ContainerResizePolicy")),
    ("RestartPolicy", "restartPolicy", Optional),
    ("RestartPolicyRules", "restartPolicyRules", List("ContainerRestartRule")),
    ("VolumeMounts", "volumeMounts", List("VolumeMount")),
    ("VolumeDevices", "volumeDevices", List("VolumeDevice")),
    ("LivenessProbe", "livenessProbe", Pointer("Probe")),
    ("ReadinessProbe", "readinessProbe", Pointer("Probe")),
    ("StartupProbe", "startupProbe", Pointer("Probe")),
    ("Lifecycle", "lifecycle", Pointer("Lifecycle")),
    ("TerminationMessagePath", "terminationMessagePath", Text),
    ("TerminationMessagePolicy", "terminationMessagePolicy", Text),
    ("ImagePullPolicy", "imagePullPolicy", Text),
    ("SecurityContext", "securityContext", Pointer("SecurityContext")),
    ("Stdin", "stdin", Flag),
    ("StdinOnce", "stdinOnce", Flag),
    ("TTY", "tty", Flag),
];

const POD_SPEC: &[Field] = &[
    ("Volumes", "volumes", List("Volume")),
    ("InitContainers", "initContainers", List("Container")),
    ("Containers", "containers", List("Container")),
    ("EphemeralContainers", "ephemeralContainers", List("EphemeralContainer")),
    ("RestartPolicy", "restartPolicy", Text),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Optional),
    ("ActiveDeadlineSeconds", "activeDeadlineSeconds", Optional),
    ("DNSPolicy", "dnsPolicy", Text),
    ("NodeSelector", "nodeSelector", Optional),
    ("ServiceAccountName", "serviceAccountName", Text),
    ("AutomountServiceAccountToken", "automountServiceAccountToken", Optional),
    ("NodeName", "nodeName", Text),
    ("SecurityContext", "securityContext", Pointer("PodSecurityContext")),
    ("ImagePullSecrets", "imagePullSecrets", List("LocalObjectReference")),
    ("Hostname", "hostname", Text),
    ("Subdomain", "subdomain", Text),
    ("SetHostnameAsFQDN", "setHostnameAsFQDN", Optional),
    ("Affinity", "affinity", Pointer("Affinity")),
    ("SchedulerName", "schedulerName", Text),
    ("Tolerations", "tolerations", List("Toleration")),
    ("HostAliases", "hostAliases", List("HostAlias")),
    ("PriorityClassName", "priorityClassName", Text),
    ("Priority", "priority", Optional),
    ("PreemptionPolicy", "preemptionPolicy", Optional),
    ("DNSConfig", "dnsConfig", Pointer("PodDNSConfig")),
    ("ReadinessGates", "readinessGates", List("PodReadinessGate")),
    ("RuntimeClassName", "runtimeClassName", Optional),
    ("Overhead", "overhead", Optional),
    ("EnableServiceLinks", "enableServiceLinks", Optional),
    ("TopologySpreadConstraints", "topologySpreadConstraints", List("TopologySpreadConstraint")),
    ("OS", "os", Pointer("PodOS")),
    ("SchedulingGates", "schedulingGates", List("PodSchedulingGate")),
    ("ResourceClaims", "resourceClaims", List("PodResourceClaim")),
    ("Resources", "resources", Pointer("ResourceRequirements")),
    ("HostnameOverride", "hostnameOverride", Optional),
    ("SchedulingGroup", "schedulingGroup", Other),
];

/// The fields of a spec that the internal form keeps in its security context.
const HOST_FIELDS: &[&str] = &["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

const POD_SECURITY_CONTEXT: &[Field] = &[
    ("HostNetwork", "hostNetwork", Flag),
    ("HostPID", "hostPID", Flag),
    ("HostIPC", "hostIPC", Flag),
    ("ShareProcessNamespace", "shareProcessNamespace", Optional),
    ("HostUsers", "hostUsers", Optional),
    ("SELinuxOptions", "seLinuxOptions", Pointer("SELinuxOptions")),
    ("WindowsOptions", "windowsOptions", Pointer("WindowsSecurityContextOptions")),
    ("RunAsUser", "runAsUser", Optional),
    ("RunAsGroup", "runAsGroup", Optional),
    ("RunAsNonRoot", "runAsNonRoot", Optional),
    ("SupplementalGroups", "supplementalGroups", Optional),
    ("SupplementalGroupsPolicy", "supplementalGroupsPolicy", Optional),
    ("FSGroup", "fsGroup", Optional),
    ("FSGroupChangePolicy", "fsGroupChangePolicy", Optional),
    ("Sysctls", "sysctls", List("Sysctl")),
    ("SeccompProfile", "seccompProfile", Pointer("SeccompProfile")),
    ("AppArmorProfile", "appArmorProfile", Pointer("AppArmorProfile")),
    ("SELinuxChangePolicy", "seLinuxChangePolicy", Optional),
];

const VOLUME: &[Field] = &[
    ("Name", "name", Text),
    ("HostPath", "hostPath", Pointer("HostPathVolumeSource")),
    ("EmptyDir", "emptyDir", Pointer("EmptyDirVolumeSource")),
    ("GCEPersistentDisk", "gcePersistentDisk", Other),
    ("AWSElasticBlockStore", "awsElasticBlockStore", Other),
    ("GitRepo", "gitRepo", Other),
    ("Secret", "secret", Pointer("SecretVolumeSource")),
    ("NFS", "nfs", Pointer("NFSVolumeSource")),
    ("ISCSI", "iscsi", Other),
    ("Glusterfs", "glusterfs", Other),
    ("PersistentVolumeClaim", "persistentVolumeClaim", Pointer("PersistentVolumeClaimVolumeSource")),
    ("RBD", "rbd", Other),
    ("Quobyte", "quobyte", Other),
    ("FlexVolume", "flexVolume", Other),
    ("Cinder", "cinder", Other),
    ("CephFS", "cephfs", Other),
    ("Flocker", "flocker", Other),
    ("DownwardAPI", "downwardAPI", Pointer("DownwardAPIVolumeSource")),
    ("FC", "fc", Other),
    ("AzureFile", "azureFile", Other),
    ("ConfigMap", "configMap", Pointer("ConfigMapVolumeSource")),
    ("VsphereVolume", "vsphereVolume", Other),
    ("AzureDisk", "azureDisk", Other),
    ("PhotonPersistentDisk", "photonPersistentDisk", Other),
    ("Projected", "projected", Pointer("ProjectedVolumeSource")),
    ("PortworxVolume", "portworxVolume", Other),
    ("ScaleIO", "scaleIO", Other),
    ("StorageOS", "storageos", Other),
    ("CSI", "csi", Pointer("CSIVolumeSource")),
    ("Ephemeral", "ephemeral", Other),
    ("Image", "image", Pointer("ImageVolumeSource")),
];

/// The fields of a type of the internal form.
fn fields_of(type_name: &str) -> &'static [Field] {
    match type_name {
        "PodSpec" => POD_SPEC,
        // An ephemeral container has one field more; see `target`.
        "Container" | "EphemeralContainer" => CONTAINER,
        "PodSecurityContext" => POD_SECURITY_CONTEXT,
        "Volume" => VOLUME,
        "ContainerPort" => &[
            ("Name", "name", Text),
            ("HostPort", "hostPort", Number),
            ("ContainerPort", "containerPort", Number),
            ("Protocol", "protocol", Text),
            ("HostIP", "hostIP", Text),
        ],
        "EnvFromSource" => &[
            ("Prefix", "prefix", Text),
            ("ConfigMapRef", "configMapRef", Pointer("OptionalReference")),
            ("SecretRef", "secretRef", Pointer("OptionalReference")),
        ],
        "OptionalReference" => &[("Name", "name", Text), ("Optional", "optional", Optional)],
        "EnvVar" => &[
            ("Name", "name", Text),
            ("Value", "value", Text),
            ("ValueFrom", "valueFrom", Pointer("EnvVarSource")),
        ],
        "EnvVarSource" => &[
            ("FieldRef", "fieldRef", Pointer("ObjectFieldSelector")),
            ("ResourceFieldRef", "resourceFieldRef", Pointer("ResourceFieldSelector")),
            ("ConfigMapKeyRef", "configMapKeyRef", Pointer("KeySelector")),
            ("SecretKeyRef", "secretKeyRef", Pointer("KeySelector")),
            ("FileKeyRef", "fileKeyRef", Pointer("FileKeySelector")),
        ],
        "ObjectFieldSelector" => &[("APIVersion", "apiVersion", Text), ("FieldPath", "fieldPath", Text)],
        "ResourceFieldSelector" => &[
            ("ContainerName", "containerName", Text),
            ("Resource", "resource", Text),
            ("Divisor", "divisor", Text),
        ],
        "KeySelector" => &[("Name", "name", Text), ("Key", "key", Text), ("Optional", "optional", Optional)],
        "FileKeySelector" => &[
            ("VolumeName", "volumeName", Text),
            ("Path", "path", Text),
            ("Key", "key", Text),
            ("Optional", "optional", Optional),
        ],
        "ResourceRequirements" => &[
            ("Limits", "limits", Optional),
            ("Requests", "requests", Optional),
            ("Claims", "claims", List("ResourceClaim")),
        ],
        "ResourceClaim" => &[("Name", "name", Text), ("Request", "request", Text)],
        "ContainerResizePolicy" => {
            &[("ResourceName", "resourceName", Text), ("RestartPolicy", "restartPolicy", Text)]
        }
        "ContainerRestartRule" => &[
            ("Action", "action", Text),
            ("ExitCodes", "exitCodes", Pointer("ContainerRestartRuleOnExitCodes")),
        ],
        "ContainerRestartRuleOnExitCodes" => {
            &[("Operator", "operator", Text), ("Values", "values", Optional)]
        }
        "VolumeMount" => &[
            ("Name", "name", Text),
            ("ReadOnly", "readOnly", Flag),
            ("RecursiveReadOnly", "recursiveReadOnly", Optional),
            ("MountPath", "mountPath", Text),
            ("SubPath", "subPath", Text),
            ("MountPropagation", "mountPropagation", Optional),
            ("SubPathExpr", "subPathExpr", Text),
        ],
        "VolumeDevice" => &[("Name", "name", Text), ("DevicePath", "devicePath", Text)],
        "Probe" => &[
            ("Exec", "exec", Pointer("ExecAction")),
            ("HTTPGet", "httpGet", Pointer("HTTPGetAction")),
            ("TCPSocket", "tcpSocket", Pointer("TCPSocketAction")),
            ("GRPC", "grpc", Pointer("GRPCAction")),
            ("InitialDelaySeconds", "initialDelaySeconds", Number),
            ("TimeoutSeconds", "timeoutSeconds", Number),
            ("PeriodSeconds", "periodSeconds", Number),
            ("SuccessThreshold", "successThreshold", Number),
            ("FailureThreshold", "failureThreshold", Number),
            ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Optional),
        ],
        "Lifecycle" => &[
            ("PostStart", "postStart", Pointer("LifecycleHandler")),
            ("PreStop", "preStop", Pointer("LifecycleHandler")),
            ("StopSignal", "stopSignal", Optional),
        ],
        "LifecycleHandler" => &[
            ("Exec", "exec", Pointer("ExecAction")),
            ("HTTPGet", "httpGet", Pointer("HTTPGetAction")),
            ("TCPSocket", "tcpSocket", Pointer("TCPSocketAction")),
            ("Sleep", "sleep", Pointer("SleepAction")),
        ],
        "ExecAction" => &[("Command", "command", Optional)],
        "HTTPGetAction" => &[
            ("Path", "path", Text),
            ("Port", "port", Number),
            ("Host", "host", Text),
            ("Scheme", "scheme", Text),
            ("HTTPHeaders", "httpHeaders", List("NameValue")),
        ],
        "TCPSocketAction" => &[("Port", "port", Number), ("Host", "host", Text)],
        "GRPCAction" => &[("Port", "port", Number), ("Service", "service", Optional)],
        "SleepAction" => &[("Seconds", "seconds", Number)],
        "NameValue" | "Sysctl" => &[("Name", "name", Text), ("Value", "value", Text)],
        "SecurityContext" => &[
            ("Capabilities", "capabilities", Pointer("Capabilities")),
            ("Privileged", "privileged", Optional),
            ("SELinuxOptions", "seLinuxOptions", Pointer("SELinuxOptions")),
            ("WindowsOptions", "windowsOptions", Pointer("WindowsSecurityContextOptions")),
            ("RunAsUser", "runAsUser", Optional),
            ("RunAsGroup", "runAsGroup", Optional),
            ("RunAsNonRoot", "runAsNonRoot", Optional),
            ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem", Optional),
            ("AllowPrivilegeEscalation", "allowPrivilegeEscalation", Optional),
            ("ProcMount", "procMount", Optional),
            ("SeccompProfile", "seccompProfile", Pointer("SeccompProfile")),
            ("AppArmorProfile", "appArmorProfile", Pointer("AppArmorProfile")),
        ],
        "Capabilities" => &[("Add", "add", Optional), ("Drop", "drop", Optional)],
        "SELinuxOptions" => &[
            ("User", "user", Text),
            ("Role", "role", Text),
            ("Type", "type", Text),
            ("Level", "level", Text),
        ],
        "WindowsSecurityContextOptions" => &[
            ("GMSACredentialSpecName", "gmsaCredentialSpecName", Optional),
            ("GMSACredentialSpec", "gmsaCredentialSpec", Optional),
            ("RunAsUserName", "runAsUserName", Optional),
            ("HostProcess", "hostProcess", Optional),
        ],
        "SeccompProfile" | "AppArmorProfile" => {
            &[("Type", "type", Text), ("LocalhostProfile", "localhostProfile", Optional)]
        }
        "HostPathVolumeSource" => &[("Path", "path", Text), ("Type", "type", Optional)],
        "EmptyDirVolumeSource" => &[("Medium", "medium", Text), ("SizeLimit", "sizeLimit", Optional)],
        "SecretVolumeSource" => &[
            ("SecretName", "secretName", Text),
            ("Items", "items", List("KeyToPath")),
            ("DefaultMode", "defaultMode", Optional),
            ("Optional", "optional", Optional),
        ],
        "ConfigMapVolumeSource" => &[
            ("Name", "name", Text),
            ("Items", "items", List("KeyToPath")),
            ("DefaultMode", "defaultMode", Optional),
            ("Optional", "optional", Optional),
        ],
        "KeyToPath" => &[("Key", "key", Text), ("Path", "path", Text), ("Mode", "mode", Optional)],
        "NFSVolumeSource" => {
            &[("Server", "server", Text), ("Path", "path", Text), ("ReadOnly", "readOnly", Flag)]
        }
        "PersistentVolumeClaimVolumeSource" => {
            &[("ClaimName", "claimName", Text), ("ReadOnly", "readOnly", Flag)]
        }
        "DownwardAPIVolumeSource" => {
            &[("Items", "items", List("DownwardAPIVolumeFile")), ("DefaultMode", "defaultMode", Optional)]
        }
        "DownwardAPIVolumeFile" => &[
            ("Path", "path", Text),
            ("FieldRef", "fieldRef", Pointer("ObjectFieldSelector")),
            ("ResourceFieldRef", "resourceFieldRef", Pointer("ResourceFieldSelector")),
            ("Mode", "mode", Optional),
        ],
        "ProjectedVolumeSource" => {
            &[("Sources", "sources", List("VolumeProjection")), ("DefaultMode", "defaultMode", Optional)]
        }
        "VolumeProjection" => &[
            ("Secret", "secret", Pointer("ItemsProjection")),
            ("DownwardAPI", "downwardAPI", Pointer("DownwardAPIProjection")),
            ("ConfigMap", "configMap", Pointer("ItemsProjection")),
            ("ServiceAccountToken", "serviceAccountToken", Pointer("ServiceAccountTokenProjection")),
            ("ClusterTrustBundle", "clusterTrustBundle", Other),
            ("PodCertificate", "podCertificate", Other),
        ],
        "ItemsProjection" => &[
            ("Name", "name", Text),
            ("Items", "items", List("KeyToPath")),
            ("Optional", "optional", Optional),
        ],
        "DownwardAPIProjection" => &[("Items", "items", List("DownwardAPIVolumeFile"))],
        "ServiceAccountTokenProjection" => &[
            ("Audience", "audience", Text),
            ("ExpirationSeconds", "expirationSeconds", Number),
            ("Path", "path", Text),
        ],
        "CSIVolumeSource" => &[
            ("Driver", "driver", Text),
            ("ReadOnly", "readOnly", Optional),
            ("FSType", "fsType", Optional),
            ("VolumeAttributes", "volumeAttributes", Optional),
            ("NodePublishSecretRef", "nodePublishSecretRef", Pointer("LocalObjectReference")),
        ],
        "ImageVolumeSource" => &[("Reference", "reference", Text), ("PullPolicy", "pullPolicy", Text)],
        "LocalObjectReference" | "PodOS" | "PodSchedulingGate" => &[("Name", "name", Text)],
        "Affinity" => &[
            ("NodeAffinity", "nodeAffinity", Pointer("NodeAffinity")),
            ("PodAffinity", "podAffinity", Pointer("PodAffinity")),
            ("PodAntiAffinity", "podAntiAffinity", Pointer("PodAffinity")),
        ],
        "NodeAffinity" => &[
            (REQUIRED.0, REQUIRED.1, Pointer("NodeSelector")),
            (PREFERRED.0, PREFERRED.1, List("PreferredSchedulingTerm")),
        ],
        "NodeSelector" => &[("NodeSelectorTerms", "nodeSelectorTerms", List("NodeSelectorTerm"))],
        "NodeSelectorTerm" => &[
            ("MatchExpressions", "matchExpressions", List("NodeSelectorRequirement")),
            ("MatchFields", "matchFields", List("NodeSelectorRequirement")),
        ],
        "NodeSelectorRequirement" => {
            &[("Key", "key", Text), ("Operator", "operator", Text), ("Values", "values", Optional)]
        }
        "PreferredSchedulingTerm" => {
            &[("Weight", "weight", Number), ("Preference", "preference", Inside("NodeSelectorTerm"))]
        }
        "PodAffinity" => &[
            (REQUIRED.0, REQUIRED.1, List("PodAffinityTerm")),
            (PREFERRED.0, PREFERRED.1, List("WeightedPodAffinityTerm")),
        ],
        "WeightedPodAffinityTerm" => {
            &[("Weight", "weight", Number), ("PodAffinityTerm", "podAffinityTerm", Inside("PodAffinityTerm"))]
        }
        // Label selectors are meta/v1 types and keep their JSON names.
        "PodAffinityTerm" => &[
            ("LabelSelector", "labelSelector", Optional),
            ("Namespaces", "namespaces", Optional),
            ("TopologyKey", "topologyKey", Text),
            ("NamespaceSelector", "namespaceSelector", Optional),
            ("MatchLabelKeys", "matchLabelKeys", Optional),
            ("MismatchLabelKeys", "mismatchLabelKeys", Optional),
        ],
        "Toleration" => &[
            ("Key", "key", Text),
            ("Operator", "operator", Text),
            ("Value", "value", Text),
            ("Effect", "effect", Text),
            ("TolerationSeconds", "tolerationSeconds", Optional),
        ],
        "HostAlias" => &[("IP", "ip", Text), ("Hostnames", "hostnames", Optional)],
        "PodDNSConfig" => &[
            ("Nameservers", "nameservers", Optional),
            ("Searches", "searches", Optional),
            ("Options", "options", List("PodDNSConfigOption")),
        ],
        "PodDNSConfigOption" => &[("Name", "name", Text), ("Value", "value", Optional)],
        "PodReadinessGate" => &[("ConditionType", "conditionType", Text)],
        "TopologySpreadConstraint" => &[
            ("MaxSkew", "maxSkew", Number),
            ("TopologyKey", "topologyKey", Text),
            ("WhenUnsatisfiable", "whenUnsatisfiable", Text),
            ("LabelSelector", "labelSelector", Optional),
            ("MinDomains", "minDomains", Optional),
            ("NodeAffinityPolicy", "nodeAffinityPolicy", Optional),
            ("NodeTaintsPolicy", "nodeTaintsPolicy", Optional),
            ("MatchLabelKeys", "matchLabelKeys", Optional),
        ],
        "PodResourceClaim" => &[
            ("Name", "name", Text),
            ("ResourceClaimName", "resourceClaimName", Optional),
            ("ResourceClaimTemplateName", "resourceClaimTemplateName", Optional),
        ],
        _ => super::storage_form::fields_of(type_name),
    }
}

const REQUIRED: (&str, &str) =
    ("RequiredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution");
const PREFERRED: (&str, &str) =
    ("PreferredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");

/// Whether two values of a type are the same to Kubernetes.
pub(crate) fn equal(type_name: &str, a: &Value, b: &Value) -> bool {
    print(type_name, a) == print(type_name, b)
}

/// A value of a type on one line.
pub(crate) fn print(type_name: &str, value: &Value) -> String {
    Printer { out: String::new(), indent: None }.value(type_name, value)
}

/// A value of a type with one field per line, indented by one space.
pub(crate) fn print_lines(type_name: &str, value: &Value) -> String {
    Printer { out: String::new(), indent: Some(0) }.value(type_name, value)
}

struct Printer {
    out: String,
    /// The depth, if lines are broken.
    indent: Option<usize>,
}

impl Printer {
    fn value(mut self, type_name: &str, value: &Value) -> String {
        self.structure(type_name, value);
        self.out
    }

    fn open(&mut self, bracket: char) {
        self.out.push(bracket);
        self.indent = self.indent.map(|depth| depth + 1);
    }

    fn close(&mut self, bracket: char) {
        self.indent = self.indent.map(|depth| depth - 1);
        self.line();
        self.out.push(bracket);
    }

    fn line(&mut self) {
        if let Some(depth) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', depth));
        }
    }

    fn separate(&mut self, first: bool) {
        if !first {
            self.out.push(',');
        }
        self.line();
    }

    fn name(&mut self, name: &str) {
        let space = if self.indent.is_some() { " " } else { "" };
        let _ = write!(self.out, "\"{name}\":{space}");
    }

    fn structure(&mut self, type_name: &str, value: &Value) {
        let merged;
        let value = if type_name == "PodSpec" {
            merged = with_host_fields(value);
            &merged
        } else {
            value
        };
        self.open('{');
        let fields = fields_of(type_name);
        for (i, (name, json, form)) in fields.iter().enumerate() {
            self.separate(i == 0);
            self.name(name);
            self.field(*form, value.get(json));
        }
        if type_name == "EphemeralContainer" {
            self.separate(false);
            self.name("TargetContainerName");
            self.field(Text, value.get("targetContainerName"));
        }
        self.close('}');
    }

    fn field(&mut self, form: Form, value: Option<&Value>) {
        let value = value.filter(|value| !is_empty(value));
        match (form, value) {
            (Text, None) => self.out.push_str("\"\""),
            (Flag, None) => self.out.push_str("false"),
            (Number, None) => self.out.push('0'),
            (Inside(type_name), None) => self.structure(type_name, &Value::Null),
            (Pointer(_) | Optional | Other | List(_), None) => self.out.push_str("null"),
            (Text | Flag | Number | Optional, Some(value)) => self.plain(value, false),
            (Other, Some(value)) => self.plain(value, true),
            (Pointer(type_name) | Inside(type_name), Some(value)) => self.structure(type_name, value),
            (List(type_name), Some(value)) => {
                self.open('[');
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.separate(i == 0);
                    self.structure(type_name, item);
                }
                self.close(']');
            }
        }
    }

    fn plain(&mut self, value: &Value, capitalize: bool) {
        match value {
            Value::Object(map) if map.is_empty() => self.out.push_str("{}"),
            Value::Array(list) if list.is_empty() => self.out.push_str("[]"),
            Value::Object(map) => {
                self.open('{');
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(i == 0);
                    let name = if capitalize { capitalized(key) } else { key.clone() };
                    self.name(&name);
                    self.plain(value, capitalize);
                }
                self.close('}');
            }
            Value::Array(list) => {
                self.open('[');
                for (i, value) in list.iter().enumerate() {
                    self.separate(i == 0);
                    self.plain(value, capitalize);
                }
                self.close(']');
            }
            other => {
                let _ = write!(self.out, "{other}");
            }
        }
    }
}

/// Empty lists and maps of plain values count as absent; an empty struct does not.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn capitalized(key: &str) -> String {
    let mut characters = key.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn with_host_fields(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let host: Map<String, Value> = HOST_FIELDS
        .iter()
        .filter_map(|field| {
            Some(((*field).to_owned(), spec.get(*field).filter(|value| !value.is_null())?.clone()))
        })
        .collect();
    if let Some(map) = spec.as_object_mut()
        && (!host.is_empty() || map.contains_key("securityContext"))
    {
        let context = map.entry("securityContext").or_insert(Value::Null);
        if !context.is_object() {
            *context = Value::Object(Map::new());
        }
        if let Some(context) = context.as_object_mut() {
            context.extend(host);
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_that_is_named_has_fields() {
        let mut open = vec!["PodSpec", "PersistentVolumeSource", "PersistentVolumeClaimSpec"];
        let mut seen = Vec::new();
        while let Some(type_name) = open.pop() {
            if seen.contains(&type_name) {
                continue;
            }
            seen.push(type_name);
            assert!(!fields_of(type_name).is_empty(), "{type_name}");
            for (_, _, form) in fields_of(type_name) {
                if let Pointer(inner) | Inside(inner) | List(inner) = form {
                    open.push(inner);
                }
            }
        }
    }

    #[test]
    fn unset_and_zero_are_the_same() {
        let absent = json!({"containers": [{"name": "a", "image": "x", "resources": {}}]});
        let zero = json!({"hostNetwork": false, "containers": [{"name": "a", "image": "x", "stdin": false, "env": []}], "volumes": [],
            "nodeName": ""});
        assert!(equal("PodSpec", &absent, &json!({"containers": [{"name": "a", "image": "x"}]})));
        // A given host field makes Kubernetes' internal security context.
        assert!(!equal("PodSpec", &absent, &zero));
        let with_context = json!({"securityContext": {}, "containers": [{"name": "a", "image": "x"}]});
        assert!(equal("PodSpec", &with_context, &zero));
    }

    #[test]
    fn one_line_has_gos_names_in_gos_order() {
        let profile = json!({"localhostProfile": "a", "type": "RuntimeDefault"});
        assert_eq!(print("SeccompProfile", &profile), r#"{"Type":"RuntimeDefault","LocalhostProfile":"a"}"#);
    }
}

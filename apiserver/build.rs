//! Takes the texts of types and fields from crate `k8s-openapi`, so that they need not be kept here a second time.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::PathBuf;

use k8s_openapi::api::{
    apps, authentication, authorization, autoscaling, batch, certificates, coordination, core, discovery,
    events, networking, node, policy, rbac, scheduling, storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::version;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Texts by type and field; the type's own stands under the empty name.
type Texts = BTreeMap<String, BTreeMap<String, String>>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let texts: Texts = definitions().iter().map(|(name, schema)| (name.clone(), texts(schema))).collect();
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptions.json.gz");
    let mut encoder = flate2::write::GzEncoder::new(File::create(path)?, flate2::Compression::best());
    serde_json::to_writer(&mut encoder, &texts)?;
    encoder.finish()?;
    Ok(())
}

macro_rules! definitions_of {
    ($($kind:ty),* $(,)?) => {{
        let mut generator = SchemaSettings::openapi3().into_generator();
        $(generator.subschema_for::<$kind>();)*
        generator.take_definitions(false)
    }};
}

/// The schemas of every kind, and of all that these refer to.
fn definitions() -> Map<String, Value> {
    definitions_of![
        core::v1::Binding,
        core::v1::ComponentStatus,
        core::v1::ConfigMap,
        core::v1::Endpoints,
        core::v1::Event,
        core::v1::LimitRange,
        core::v1::Namespace,
        core::v1::Node,
        core::v1::PersistentVolume,
        core::v1::PersistentVolumeClaim,
        core::v1::Pod,
        core::v1::PodTemplate,
        core::v1::ReplicationController,
        core::v1::ResourceQuota,
        core::v1::Secret,
        core::v1::Service,
        core::v1::ServiceAccount,
        apps::v1::ControllerRevision,
        apps::v1::DaemonSet,
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        apps::v1::StatefulSet,
        authentication::v1::SelfSubjectReview,
        authentication::v1::TokenRequest,
        authentication::v1::TokenReview,
        authorization::v1::LocalSubjectAccessReview,
        authorization::v1::SelfSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview,
        authorization::v1::SubjectAccessReview,
        autoscaling::v1::Scale,
        autoscaling::v1::HorizontalPodAutoscaler,
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::CronJob,
        batch::v1::Job,
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        networking::v1::Ingress,
        networking::v1::IngressClass,
        networking::v1::NetworkPolicy,
        node::v1::RuntimeClass,
        policy::v1::Eviction,
        policy::v1::PodDisruptionBudget,
        rbac::v1::ClusterRole,
        rbac::v1::ClusterRoleBinding,
        rbac::v1::Role,
        rbac::v1::RoleBinding,
        scheduling::v1::PriorityClass,
        storage::v1::CSIDriver,
        storage::v1::CSINode,
        storage::v1::CSIStorageCapacity,
        storage::v1::StorageClass,
        storage::v1::VolumeAttachment,
        storage::v1::VolumeAttributesClass,
        meta::APIGroup,
        meta::APIGroupList,
        meta::APIResourceList,
        meta::APIVersions,
        meta::DeleteOptions,
        meta::Patch,
        meta::Status,
        version::Info,
    ]
}

fn texts(schema: &Value) -> BTreeMap<String, String> {
    let text = |schema: &Value| schema.get("description").and_then(Value::as_str).map(str::to_owned);
    let mut texts: BTreeMap<String, String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(field, schema)| Some((field.clone(), text(schema)?)))
        .collect();
    texts.extend(text(schema).map(|text| (String::new(), text)));
    texts
}

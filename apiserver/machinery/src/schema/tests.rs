use super::*;

fn schemas() -> Schemas {
    Schemas::builtin().unwrap()
}

fn walk<'a>(schema: Schema<'a>, path: &str) -> Field<'a> {
    let mut parts = path.split('.').peekable();
    let mut at = schema;
    loop {
        let name = parts.next().unwrap();
        let field = at.field(name).unwrap_or_else(|| panic!("{name} of {path}"));
        if parts.peek().is_none() {
            return field;
        }
        at = match field.schema().shape() {
            Shape::List { items, .. } => items,
            Shape::Map { values, .. } => values,
            _ => field.schema(),
        };
    }
}

#[test]
fn every_kind_is_found_and_every_reference_leads_somewhere() {
    let schemas = schemas();
    assert_eq!(schemas.names().count(), 584);
    for (group, version, kind) in
        [("", "v1", "Pod"), ("apps", "v1", "Deployment"), ("rbac.authorization.k8s.io", "v1", "Role")]
    {
        let schema = schemas.root(group, version, kind).unwrap();
        assert_eq!(schema.short_name(), Some(kind));
        assert!(schema.kinds().iter().any(|k| k.kind == kind && k.group == group));
    }
    assert!(schemas.root("", "v1", "Nothing").is_none());
    assert!(schemas.root_of("apps/v1", "Deployment").is_some());
    assert!(schemas.named("io.k8s.api.core.v1.PodSpec").unwrap().field("containers").is_some());
}

#[test]
fn lists_know_their_keys_and_strategies() {
    let schemas = schemas();
    let pod = schemas.root("", "v1", "Pod").unwrap();
    let kind = |path: &str| match walk(pod, path).schema().shape() {
        Shape::List { kind, .. } => kind.clone(),
        other => panic!("{other:?}"),
    };
    let keys = |keys: &[&str]| ListKind::Map(keys.iter().map(|key| (*key).to_owned()).collect());
    assert_eq!(kind("spec.containers"), keys(&["name"]));
    assert_eq!(kind("spec.containers.ports"), keys(&["containerPort", "protocol"]));
    assert_eq!(kind("spec.topologySpreadConstraints"), keys(&["topologyKey", "whenUnsatisfiable"]));
    assert_eq!(kind("spec.containers.args"), ListKind::Atomic);
    assert_eq!(kind("metadata.finalizers"), ListKind::Set);
    // Merged by patches, and yet atomic to server-side apply.
    assert_eq!(kind("status.hostIPs"), ListKind::Atomic);
    assert!(walk(pod, "status.hostIPs").patch().merges);
    let ports = walk(pod, "spec.containers.ports").patch();
    assert_eq!((ports.merges, ports.merge_key.as_deref()), (true, Some("containerPort")));
    let volumes = walk(pod, "spec.volumes").patch();
    assert!(volumes.merges && volumes.retains_keys);
    let deployment = schemas.root("apps", "v1", "Deployment").unwrap();
    assert!(walk(deployment, "spec.strategy").patch().retains_keys);
}

#[test]
fn fields_know_how_they_look_when_left_out() {
    let schemas = schemas();
    let pod = schemas.root("", "v1", "Pod").unwrap();
    let deployment = schemas.root("apps", "v1", "Deployment").unwrap();
    let role = schemas.root("rbac.authorization.k8s.io", "v1", "Role").unwrap();
    let table = [
        (pod, "spec.containers.name", Presence::Always),
        (pod, "spec.containers.image", Presence::OmitZero),
        (pod, "spec.containers.stdin", Presence::OmitZero),
        (pod, "spec.containers.resources", Presence::Always),
        (pod, "spec.containers.securityContext", Presence::Pointer),
        (pod, "spec.containers.securityContext.privileged", Presence::Pointer),
        (pod, "spec.containers", Presence::Null),
        (pod, "spec.hostNetwork", Presence::OmitZero),
        (pod, "spec.priority", Presence::Pointer),
        (pod, "spec.runtimeClassName", Presence::Pointer),
        (pod, "metadata.creationTimestamp", Presence::Pointer),
        (pod, "status.conditions.lastProbeTime", Presence::Null),
        (pod, "spec.containers.env.valueFrom.resourceFieldRef.divisor", Presence::Always),
        (pod, "spec.containers.livenessProbe.httpGet.port", Presence::Always),
        (deployment, "spec.replicas", Presence::Pointer),
        (deployment, "spec.paused", Presence::OmitZero),
        (deployment, "status", Presence::Always),
        (role, "rules", Presence::Null),
    ];
    for (schema, path, want) in table {
        assert_eq!(walk(schema, path).presence(), want, "{path}");
    }
    assert_eq!(walk(pod, "spec.containers.ports.protocol").default(), Some(&Value::from("TCP")));
    assert_eq!(walk(pod, "spec.containers.imagePullPolicy").enumeration().len(), 3);
    assert!(walk(deployment, "spec.selector").is_required());
}

#[test]
fn types_are_named_as_go_names_them() {
    let schemas = schemas();
    let pod = schemas.root("", "v1", "Pod").unwrap();
    let secret = schemas.root("", "v1", "Secret").unwrap();
    let table = [
        (pod, "spec", "v1.PodSpec"),
        (pod, "spec.containers", "[]v1.Container"),
        (pod, "metadata.labels", "map[string]string"),
        (pod, "spec.hostNetwork", "bool"),
        (pod, "spec.priority", "int32"),
        (pod, "spec.containers.resources.limits", "map[string]resource.Quantity"),
        (secret, "data", "map[string][]uint8"),
    ];
    for (schema, path, want) in table {
        assert_eq!(walk(schema, path).schema().go_type(), want, "{path}");
    }
}

#[test]
fn recursive_and_two_fold_types_are_walked_like_others() {
    let schemas = schemas();
    let crd = schemas.root("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let props = walk(crd, "spec.versions.schema.openAPIV3Schema").schema();
    let items = props.field("items").unwrap().schema();
    let object = items.for_value(&serde_json::json!({}));
    assert_eq!(object.short_name(), Some("JSONSchemaProps"));
    assert!(matches!(items.for_value(&serde_json::json!([])).shape(), Shape::List { .. }));
    let either = props.field("additionalProperties").unwrap().schema();
    assert!(matches!(either.for_value(&Value::Bool(true)).shape(), Shape::Scalar(Scalar::Boolean)));
    assert!(matches!(props.field("default").unwrap().schema().shape(), Shape::Any));
}

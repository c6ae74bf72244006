use serde_json::{Value, json};

use super::*;

fn service(changes: &Value) -> Service {
    let mut service = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "svc", "labels": { "team": "a" } },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] },
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    serde_json::from_value(service).expect("a service")
}

fn pod(number: usize, changes: &Value) -> Arc<Pod> {
    let text = |key: &str, default: &str| changes[key].as_str().unwrap_or(default).to_owned();
    let mut pod = json!({
        "metadata": { "name": format!("p{number}"), "namespace": "shop", "uid": format!("u{number}") },
        "spec": { "nodeName": "n1", "hostname": changes["hostname"], "subdomain": changes["subdomain"],
            "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": changes["port"].as_i64().unwrap_or(8080) }] }] },
        "status": { "phase": text("phase", "Running"), "podIP": text("ip", &format!("10.0.0.{number}")),
            "conditions": [{ "type": "Ready", "status": text("ready", "True") }] },
    });
    if changes["terminating"] == true {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn plan_of(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    max_endpoints: usize,
) -> Plan {
    let node = json!({ "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": "z1" } } });
    let nodes = HashMap::from([("n1".to_owned(), Arc::new(serde_json::from_value(node).expect("a node")))]);
    plan(&Observed { service, pods, nodes: &nodes, slices, max_endpoints })
}

/// The slices as the API server would have them after the plan.
fn applied(plan: Plan, before: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
    let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
    let mut slices: Vec<_> =
        before.iter().filter(|slice| !plan.delete.contains(&name(slice))).cloned().collect();
    for updated in plan.update {
        slices.retain(|slice| name(slice) != name(&updated));
        slices.push(Arc::new(updated));
    }
    for (index, mut created) in plan.create.into_iter().enumerate() {
        created.metadata.name = Some(format!("web-{index}-{}", slices.len()));
        slices.push(Arc::new(created));
    }
    slices
}

fn endpoints(slice: &EndpointSlice) -> Vec<&str> {
    slice.endpoints.iter().flatten().map(|endpoint| endpoint.addresses[0].as_str()).collect()
}

#[test]
fn a_service_gets_a_slice_of_its_pods() {
    let service = service(&json!({}));
    let plan = plan_of(&service, &[pod(1, &json!({})), pod(2, &json!({ "ready": "False" }))], &[], 100);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (1, 0, 0));
    let slice = &plan.create[0];
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    let labels = json!(slice.metadata.labels);
    let expected = json!({ "team": "a", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" });
    assert_eq!(labels, expected);
    assert_eq!(json!(slice.ports), json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    let endpoint = |number: i32, ready: bool| {
        json!({ "addresses": [format!("10.0.0.{number}")], "nodeName": "n1", "zone": "z1",
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": "shop", "name": format!("p{number}"), "uid": format!("u{number}") } })
    };
    assert_eq!(json!(slice.endpoints), json!([endpoint(1, true), endpoint(2, false)]));
}

#[test]
fn conditions_follow_readiness_termination_and_publishing() {
    for (publish, pod_changes, expected) in [
        (false, json!({}), Some((true, true, false))),
        (false, json!({ "ready": "False" }), Some((false, false, false))),
        (false, json!({ "terminating": true }), Some((false, true, true))),
        (true, json!({ "ready": "False" }), Some((true, false, false))),
        (true, json!({ "terminating": true, "ready": "False" }), Some((true, false, true))),
        (false, json!({ "phase": "Succeeded" }), None),
        (true, json!({ "phase": "Failed" }), None),
        (false, json!({ "ip": "" }), None),
        (false, json!({ "ip": "fd00::1" }), None),
    ] {
        let service = service(&json!({ "publishNotReadyAddresses": publish }));
        let plan = plan_of(&service, &[pod(1, &pod_changes)], &[], 100);
        let conditions =
            plan.create[0].endpoints.as_ref().and_then(|endpoints| endpoints.first()).map(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap_or_default)
            });
        let expected = expected.map(|(ready, serving, terminating)| [ready, serving, terminating]);
        assert_eq!(conditions, expected, "{publish} {pod_changes}");
    }
}

#[test]
fn a_service_without_pods_has_one_empty_slice_that_is_then_replaced() {
    let service = service(&json!({}));
    let empty = applied(plan_of(&service, &[], &[], 100), &[]);
    assert_eq!((empty.len(), endpoints(&empty[0]).len()), (1, 0));
    assert_eq!(plan_of(&service, &[], &empty, 100), Plan::default());
    let filled = applied(plan_of(&service, &[pod(1, &json!({}))], &empty, 100), &empty);
    assert_eq!((filled.len(), endpoints(&filled[0])), (1, vec!["10.0.0.1"]));
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let service = service(&json!({}));
    let pods: Vec<_> = (1..8).map(|number| pod(number, &json!({}))).collect();
    let slices = applied(plan_of(&service, &pods, &[], 3), &[]);
    assert_eq!(slices.len(), 3);
    let reversed: Vec<_> = pods.iter().rev().cloned().collect();
    assert_eq!(plan_of(&service, &reversed, &slices, 3), Plan::default());
}

#[test]
fn a_change_of_one_pod_touches_one_slice() {
    let service = service(&json!({}));
    let mut pods: Vec<_> = (1..8).map(|number| pod(number, &json!({}))).collect();
    let slices = applied(plan_of(&service, &pods, &[], 3), &[]);
    pods[0] = pod(1, &json!({ "ready": "False" }));
    let plan = plan_of(&service, &pods, &slices, 3);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    // One goes, another comes: it takes the place in the slice that changes anyway.
    pods[0] = pod(9, &json!({}));
    let plan = plan_of(&service, &pods, &slices, 3);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    let after = applied(plan, &slices);
    assert_eq!(after.iter().map(|slice| endpoints(slice).len()).sum::<usize>(), 7);
}

#[test]
fn slices_that_become_empty_are_deleted() {
    let service = service(&json!({}));
    let pods: Vec<_> = (1..5).map(|number| pod(number, &json!({}))).collect();
    let slices = applied(plan_of(&service, &pods, &[], 2), &[]);
    let plan = plan_of(&service, &pods[..2], &slices, 2);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 0, 1));
    let plan = plan_of(&service, &[], &slices, 2);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 2), "the empty slice has no ports");
}

#[test]
fn pods_that_know_a_port_by_another_number_have_a_slice_of_their_own() {
    let service = service(&json!({}));
    let plan = plan_of(&service, &[pod(1, &json!({})), pod(2, &json!({ "port": 9090 }))], &[], 100);
    let ports: Vec<_> = plan.create.iter().map(|slice| json!(slice.ports)[0]["port"].clone()).collect();
    assert_eq!(ports, [json!(8080), json!(9090)]);
}

#[test]
fn headless_services_are_labelled_and_name_hosts() {
    let service = service(&json!({ "clusterIP": "None", "ports": null }));
    let pods = [
        pod(1, &json!({ "hostname": "db-0", "subdomain": "web" })),
        pod(2, &json!({ "hostname": "x", "subdomain": "other" })),
    ];
    let plan = plan_of(&service, &pods, &[], 100);
    let slice = &plan.create[0];
    assert_eq!(
        slice.metadata.labels.as_ref().and_then(|labels| labels.get(HEADLESS)).map(String::as_str),
        Some("")
    );
    let hostnames: Vec<_> =
        slice.endpoints.iter().flatten().map(|endpoint| endpoint.hostname.as_deref()).collect();
    assert_eq!(hostnames, [Some("db-0"), None]);
    assert_eq!(json!(slice.ports), json!([]));
}

#[test]
fn both_families_have_their_slices() {
    let service = service(&json!({ "ipFamilies": ["IPv6", "IPv4"] }));
    let mut dual: Pod = (*pod(1, &json!({}))).clone();
    if let Some(status) = &mut dual.status {
        status.pod_ips =
            serde_json::from_value(json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }])).expect("addresses");
    }
    let plan = plan_of(&service, &[Arc::new(dual)], &[], 100);
    let families: Vec<_> = plan
        .create
        .iter()
        .map(|slice| (slice.address_type.as_str(), endpoints(slice)[0].to_owned()))
        .collect();
    assert_eq!(families, [("IPv4", "10.0.0.1".to_owned()), ("IPv6", "fd00::1".to_owned())]);
}

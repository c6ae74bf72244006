use super::*;

const NODE: &str = "n1";

fn node() -> NodeInfo {
    NodeInfo { name: NODE.to_owned(), zone: Some("z1".to_owned()) }
}

fn service(spec: &str) -> Arc<Service> {
    with_ingress(spec, "[]")
}

fn with_ingress(spec: &str, ingress: &str) -> Arc<Service> {
    let text = format!(
        r#"{{"metadata":{{"name":"s","namespace":"d"}},"spec":{spec},"status":{{"loadBalancer":{{"ingress":{ingress}}}}}}}"#
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

fn slice(ports: &str, endpoints: &str) -> Arc<EndpointSlice> {
    let text = format!(
        r#"{{"addressType":"IPv4","metadata":{{"name":"s-1","namespace":"d","labels":{{"kubernetes.io/service-name":"s"}}}},
            "ports":{ports},"endpoints":{endpoints}}}"#
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

fn target(target: Target<'_>) -> String {
    match target {
        Target::Endpoints(endpoints) => {
            endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        Target::Reject => "reject".to_owned(),
        Target::Drop => "drop".to_owned(),
    }
}

/// One line per address.
fn printed(ruleset: &Ruleset) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, rule) in &ruleset.ports {
        let ip = SocketAddr::new(rule.cluster_ip, rule.port);
        lines.push(format!("{} {ip} -> {}", name.protocol, target(rule.internal_target())));
        for ip in rule.outside_ips() {
            let ip = SocketAddr::new(ip, rule.port);
            lines.push(format!("{} {ip} -> {}", name.protocol, target(rule.external_target())));
        }
        if let Some(port) = rule.node_port {
            lines.push(format!("{} node:{port} -> {}", name.protocol, target(rule.external_target())));
        }
    }
    lines
}

const HTTP: &str =
    r#"{"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9"],"ports":[{"port":80,"protocol":"TCP"}]}"#;
const PORTS: &str = r#"[{"name":"","port":8080,"protocol":"TCP"}]"#;
const READY_AND_TERMINATING: &str = r#"[{"addresses":["10.0.0.2"],"conditions":{"ready":true}},
    {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}]"#;
const HERE_AND_THERE: &str =
    r#"[{"addresses":["10.0.0.2"],"nodeName":"n1"},{"addresses":["10.0.1.2"],"nodeName":"n2"}]"#;
const THERE: &str = r#"[{"addresses":["10.0.1.2"],"nodeName":"n2"}]"#;

#[test]
fn a_service_is_served_at_its_addresses_by_its_ready_endpoints() {
    let terminating =
        r#"[{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}]"#;
    let not_ready = r#"[{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":false}}]"#;
    let serving_but_never_ready =
        r#"[{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true}}]"#;
    let two_addresses = r#"[{"addresses":["10.0.0.3","10.0.0.4"]},{"addresses":["10.0.0.2"]}]"#;
    let published_not_ready = r#"[{"addresses":["10.0.0.3"],"conditions":{"ready":true,"serving":false}}]"#;
    let table: [(&str, &str, &str, &[&str]); 13] = [
        (HTTP, PORTS, READY_AND_TERMINATING, &["tcp 10.96.0.9:80 -> 10.0.0.2:8080"]),
        (HTTP, PORTS, terminating, &["tcp 10.96.0.9:80 -> 10.0.0.3:8080"]),
        (HTTP, PORTS, not_ready, &["tcp 10.96.0.9:80 -> reject"]),
        (HTTP, PORTS, serving_but_never_ready, &["tcp 10.96.0.9:80 -> reject"]),
        (HTTP, PORTS, two_addresses, &["tcp 10.96.0.9:80 -> 10.0.0.2:8080,10.0.0.3:8080"]),
        (HTTP, PORTS, published_not_ready, &["tcp 10.96.0.9:80 -> 10.0.0.3:8080"]),
        (
            HTTP,
            r#"[{"name":"other","port":1,"protocol":"TCP"}]"#,
            READY_AND_TERMINATING,
            &["tcp 10.96.0.9:80 -> reject"],
        ),
        (r#"{"clusterIP":"None","ports":[{"port":80}]}"#, PORTS, READY_AND_TERMINATING, &[]),
        (
            r#"{"type":"ExternalName","externalName":"x.y","ports":[{"port":80}]}"#,
            PORTS,
            READY_AND_TERMINATING,
            &[],
        ),
        (
            r#"{"clusterIP":"10.96.0.9","type":"NodePort","ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}]}"#,
            PORTS,
            READY_AND_TERMINATING,
            &["tcp 10.96.0.9:80 -> 10.0.0.2:8080", "tcp node:30080 -> 10.0.0.2:8080"],
        ),
        (
            r#"{"clusterIP":"10.96.0.9","externalIPs":["192.0.2.7"],"ports":[{"port":80}]}"#,
            PORTS,
            READY_AND_TERMINATING,
            &["tcp 10.96.0.9:80 -> 10.0.0.2:8080", "tcp 192.0.2.7:80 -> 10.0.0.2:8080"],
        ),
        (
            r#"{"clusterIP":"10.96.0.9","ports":[{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53}]}"#,
            r#"[{"name":"dns","port":5353,"protocol":"UDP"},{"name":"dns-tcp","port":5354,"protocol":"TCP"}]"#,
            r#"[{"addresses":["10.0.0.2"]}]"#,
            &["udp 10.96.0.9:53 -> 10.0.0.2:5353", "tcp 10.96.0.9:53 -> 10.0.0.2:5354"],
        ),
        (
            r#"{"clusterIP":"10.96.0.9","ports":[{"port":80,"protocol":"SCTP"}]}"#,
            r#"[{"port":8080,"protocol":"SCTP"}]"#,
            r#"[{"addresses":["10.0.0.2"]}]"#,
            &[],
        ),
    ];
    for (spec, ports, endpoints, want) in table {
        let got = compute(&[service(spec)], &[slice(ports, endpoints)], &node());
        assert_eq!(printed(&got), want, "{spec} {endpoints}");
    }
}

#[test]
fn a_service_without_slices_is_refused() {
    assert_eq!(printed(&compute(&[service(HTTP)], &[], &node())), ["tcp 10.96.0.9:80 -> reject"]);
}

#[test]
fn each_traffic_policy_keeps_its_own_addresses_to_the_node() {
    let spec = |policies: &str| {
        format!(
            r#"{{"clusterIP":"10.96.0.9","type":"NodePort",{policies},"ports":[{{"port":80,"nodePort":30080}}]}}"#
        )
    };
    let (internal, external) = (r#""internalTrafficPolicy":"Local""#, r#""externalTrafficPolicy":"Local""#);
    let terminating_here = r#"[{"addresses":["10.0.0.3"],"nodeName":"n1","conditions":{"ready":false,"serving":true,"terminating":true}},
        {"addresses":["10.0.1.2"],"nodeName":"n2"}]"#;
    let both = "10.0.0.2:8080,10.0.1.2:8080";
    let table = [
        (internal, HERE_AND_THERE, "10.0.0.2:8080", both),
        (external, HERE_AND_THERE, both, "10.0.0.2:8080"),
        (internal, THERE, "drop", "10.0.1.2:8080"),
        (external, THERE, "10.0.1.2:8080", "drop"),
        (external, "[]", "reject", "reject"),
        (external, terminating_here, "10.0.1.2:8080", "10.0.0.3:8080"),
    ];
    for (policies, endpoints, cluster_ip, node_port) in table {
        let got = compute(&[service(&spec(policies))], &[slice(r#"[{"port":8080}]"#, endpoints)], &node());
        let want = [format!("tcp 10.96.0.9:80 -> {cluster_ip}"), format!("tcp node:30080 -> {node_port}")];
        assert_eq!(printed(&got), want, "{policies} {endpoints}");
        let rule = got.ports.values().next().unwrap();
        assert_eq!(target(rule.short_cut_target()), target(rule.target(TrafficPolicy::Cluster)));
    }
}

#[test]
fn a_load_balancer_is_served_at_its_addresses_with_its_source_ranges_and_health_check() {
    let spec = r#"{"clusterIP":"10.96.0.9","type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":31000,
        "loadBalancerSourceRanges":["192.0.2.0/24","2001:db8::/32"],"ports":[{"port":80,"nodePort":30080}]}"#;
    let ingress =
        r#"[{"ip":"198.51.100.1","ipMode":"VIP"},{"ip":"198.51.100.2","ipMode":"Proxy"},{"hostname":"x.y"}]"#;
    let slices = [slice(r#"[{"port":8080}]"#, HERE_AND_THERE)];
    let got = compute(&[with_ingress(spec, ingress)], &slices, &node());
    assert_eq!(
        printed(&got),
        [
            "tcp 10.96.0.9:80 -> 10.0.0.2:8080,10.0.1.2:8080",
            "tcp 198.51.100.1:80 -> 10.0.0.2:8080",
            "tcp node:30080 -> 10.0.0.2:8080",
        ]
    );
    let rule = got.ports.values().next().unwrap();
    assert_eq!(rule.source_ranges, Some(vec!["192.0.2.0/24".parse().unwrap()]));
    let check = HealthCheck { namespace: "d".into(), service: "s".into(), local_endpoints: 1 };
    assert_eq!(got.health_checks, BTreeMap::from([(31000, check)]));

    let none_here = compute(&[with_ingress(spec, ingress)], &[slice(r#"[{"port":8080}]"#, THERE)], &node());
    assert_eq!(none_here.health_checks[&31000].local_endpoints, 0);
    let not_a_balancer = with_ingress(&spec.replace("LoadBalancer", "NodePort"), ingress);
    let got = compute(&[not_a_balancer], &slices, &node());
    assert!(got.health_checks.is_empty());
    assert_eq!(printed(&got).len(), 2, "a status that is left over is not served");
}

#[test]
fn affinity_has_the_configured_timeout_or_three_hours() {
    let table = [
        ("", None),
        (r#""sessionAffinity":"None","#, None),
        (r#""sessionAffinity":"ClientIP","#, Some(10_800)),
        (
            r#""sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":7}},"#,
            Some(7),
        ),
    ];
    for (affinity, want) in table {
        let spec = format!(r#"{{"clusterIP":"10.96.0.9",{affinity}"ports":[{{"port":80}}]}}"#);
        let got = compute(&[service(&spec)], &[], &node());
        let got = got.ports.values().next().unwrap().affinity;
        assert_eq!(got, want.map(Duration::from_secs), "{affinity}");
    }
}

#[test]
fn each_family_has_its_own_address_and_endpoints() {
    let spec = r#"{"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9","fd00:96::9"],"externalIPs":["2001:db8::7"],"ports":[{"port":80}]}"#;
    let six = slice(PORTS, r#"[{"addresses":["fd00::2"]}]"#);
    let got = compute(&[service(spec)], &[slice(PORTS, READY_AND_TERMINATING), six], &node());
    assert_eq!(
        printed(&got),
        [
            "tcp 10.96.0.9:80 -> 10.0.0.2:8080",
            "tcp [fd00:96::9]:80 -> [fd00::2]:8080",
            "tcp [2001:db8::7]:80 -> [fd00::2]:8080",
        ]
    );
}

#[test]
fn hints_narrow_the_endpoints_down_to_the_node_or_its_zone_if_all_have_them_and_any_is_meant() {
    let endpoints = |first: &str, second: &str| {
        format!(r#"[{{"addresses":["10.0.0.2"]{first}}},{{"addresses":["10.0.0.3"]{second}}}]"#)
    };
    let zone = |name: &str| format!(r#","hints":{{"forZones":[{{"name":"{name}"}}]}}"#);
    let on_node = |name: &str| format!(r#","hints":{{"forNodes":[{{"name":"{name}"}}]}}"#);
    let both = "10.0.0.2:8080,10.0.0.3:8080";
    let table = [
        (zone("z1"), zone("z2"), "10.0.0.2:8080"),
        (zone("z2"), zone("z2"), both),
        (zone("z1"), String::new(), both),
        (on_node("n2"), on_node("n1"), "10.0.0.3:8080"),
        (on_node("n2"), on_node("n3"), both),
    ];
    for (first, second, want) in table {
        let got = compute(&[service(HTTP)], &[slice(PORTS, &endpoints(&first, &second))], &node());
        assert_eq!(printed(&got), [format!("tcp 10.96.0.9:80 -> {want}")], "{first} {second}");
    }
}

#[test]
fn only_what_changed_is_computed_again_and_the_difference_names_it() {
    let named = |name: &str, ip: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"d"}},"spec":{{"clusterIP":"{ip}","ports":[{{"port":80}}]}}}}"#
        );
        Arc::new(serde_json::from_str::<Service>(&text).unwrap())
    };
    let (a, b, c) = (named("a", "10.96.0.1"), named("b", "10.96.0.2"), named("c", "10.96.0.3"));
    let mut planner = Planner::default();
    let first = planner.plan(&[Arc::clone(&a), Arc::clone(&b)], &[], &node());
    let second = planner.plan(&[Arc::clone(&a), named("b", "10.96.0.4"), c], &[], &node());
    let shared = |ruleset: &Ruleset| Arc::clone(ruleset.ports.values().next().unwrap());
    assert!(Arc::ptr_eq(&shared(&first), &shared(&second)), "a is the same rule");

    let names = |old: &Ruleset, new: &Ruleset| -> Vec<String> {
        let of = |difference: Difference<'_>| {
            let sign = match (difference.old, difference.new) {
                (None, _) => "+",
                (_, None) => "-",
                _ => "~",
            };
            format!("{sign}{}", difference.name.service)
        };
        Ruleset::differences(old, new).into_iter().map(of).collect()
    };
    assert_eq!(names(&first, &second), ["~b", "+c"]);
    assert_eq!(names(&second, &first), ["~b", "-c"]);
    assert_eq!(names(&second, &second), [] as [&str; 0]);
    assert_eq!(names(&Ruleset::default(), &first), ["+a", "+b"]);

    let elsewhere = NodeInfo { name: "n2".to_owned(), zone: None };
    planner.plan(&[a, b], &[slice(PORTS, THERE)], &elsewhere);
    assert_eq!(planner.plan(&[service(HTTP)], &[slice(PORTS, THERE)], &elsewhere), {
        compute(&[service(HTTP)], &[slice(PORTS, THERE)], &elsewhere)
    });
}

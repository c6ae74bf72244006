//! What Service ports do to packets, on every backend.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
};

use crate::{
    fixture::{Answer, Fixture, MODES, ask, tcp, udp},
    netns::{Netns, can_be_made},
    objects::Objects,
};

const PORTS: &str =
    r#"[{"name":"tcp","port":8080,"protocol":"TCP"},{"name":"udp","port":8080,"protocol":"UDP"}]"#;
const BOTH: &str =
    r#"[{"addresses":["10.244.0.2"],"nodeName":"n1"},{"addresses":["10.244.0.3"],"nodeName":"n1"}]"#;
const ONE: &str = r#"[{"addresses":["10.244.0.2"],"nodeName":"n1"}]"#;
const TWO: &str = r#"[{"addresses":["10.244.0.3"],"nodeName":"n1"}]"#;
/// The pod is here; the slice says that it is on another node.
const ELSEWHERE: &str = r#"[{"addresses":["10.244.0.2"],"nodeName":"n2"}]"#;

/// A Service at 10.96.0.1 with node port 30080, and more fields.
fn spec(more: &str) -> String {
    format!(
        r#"{{"clusterIP":"10.96.0.1","type":"NodePort",{more}"ports":[
            {{"name":"tcp","port":80,"protocol":"TCP","nodePort":30080}},{{"name":"udp","port":80,"protocol":"UDP","nodePort":30080}}]}}"#
    )
}

fn answer(name: &str, client: &str) -> Result<Answer, ErrorKind> {
    Ok(Answer { name: name.to_owned(), client: client.parse().unwrap() })
}

fn on_every_backend(test: &str, work: impl Fn(&Fixture)) {
    if can_be_made(test) {
        for mode in MODES {
            work(&Fixture::new(mode));
        }
    }
}

/// How often each endpoint answered.
fn tally(from: &Netns, to: &str, times: usize) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for _ in 0..times {
        *tally.entry(tcp(from, to).unwrap().name).or_default() += 1;
    }
    tally
}

#[test]
fn everybody_reaches_the_endpoints_through_the_cluster_ip_and_the_node_port() {
    on_every_backend("everybody_reaches", |fixture| {
        let Fixture { node, outside, one, two, mode, .. } = fixture;
        fixture.apply(Objects::default().with("s", &spec(""), &[(PORTS, TWO)]).ruleset());
        for ask in [tcp, udp] {
            // A pod keeps its address; what comes from outside of the pods' network is masqueraded.
            assert_eq!(ask(one, "10.96.0.1:80"), answer("two", "10.244.0.2"), "{mode}");
            assert_eq!(ask(node, "10.96.0.1:80"), answer("two", "10.244.0.1"), "{mode}");
            assert_eq!(ask(outside, "10.96.0.1:80"), answer("two", "10.244.0.1"), "{mode}");
            for from in [node, outside, one] {
                assert_eq!(ask(from, "192.0.2.1:30080"), answer("two", "10.244.0.1"), "{mode}");
            }
            // A pod that reaches itself sees somebody else.
            assert_eq!(ask(two, "10.96.0.1:80"), answer("two", "10.244.0.1"), "{mode}");
            assert_eq!(ask(two, "192.0.2.1:30080"), answer("two", "10.244.0.1"), "{mode}");
            // Outwards, pods have the node's address.
            assert_eq!(ask(one, "192.0.2.2:8080"), answer("outside", "192.0.2.1"), "{mode}");
            assert_eq!(ask(one, "10.244.0.3:8080"), answer("two", "10.244.0.2"), "{mode}");
        }
    });
}

#[test]
fn connections_are_spread_over_the_endpoints_and_follow_their_changes() {
    on_every_backend("connections_are_spread", |fixture| {
        let Fixture { node, outside, mode, .. } = fixture;
        let objects = |endpoints| Objects::default().with("s", &spec(""), &[(PORTS, endpoints)]).ruleset();
        fixture.apply(objects(BOTH));
        for (from, to) in [(node, "10.96.0.1:80"), (outside, "192.0.2.1:30080")] {
            let tally = tally(from, to, 40);
            assert!(tally.len() == 2 && tally.values().all(|times| *times >= 5), "{mode}: {tally:?}");
        }
        assert_eq!(fixture.apply(objects(ONE)).changed, 2, "two ports");
        assert_eq!(tally(node, "10.96.0.1:80", 10), BTreeMap::from([("one".to_owned(), 10)]), "{mode}");
        assert_eq!(fixture.apply(objects(ONE)).changed, 0);
        fixture.apply(objects(TWO));
        assert_eq!(tally(outside, "192.0.2.1:30080", 10), BTreeMap::from([("two".to_owned(), 10)]), "{mode}");
        fixture.apply(objects(BOTH));
        assert_eq!(tally(node, "10.96.0.1:80", 30).len(), 2, "{mode}");
    });
}

#[test]
fn without_endpoints_connections_are_refused_at_once_and_come_back_with_them() {
    on_every_backend("without_endpoints", |fixture| {
        let Fixture { node, outside, one, mode, .. } = fixture;
        let objects = |endpoints| Objects::default().with("s", &spec(""), &[(PORTS, endpoints)]).ruleset();
        let addresses = [
            (node, "10.96.0.1:80"),
            (one, "10.96.0.1:80"),
            (outside, "10.96.0.1:80"),
            (node, "192.0.2.1:30080"),
            (outside, "192.0.2.1:30080"),
        ];
        for endpoints in ["[]", ONE, "[]", TWO] {
            fixture.apply(objects(endpoints));
            for (from, to) in addresses {
                let (over_tcp, over_udp) = (tcp(from, to), udp(from, to));
                if endpoints == "[]" {
                    assert_eq!(
                        over_tcp,
                        Err(ErrorKind::ConnectionRefused),
                        "{mode} {to}\n{}",
                        fixture.rules()
                    );
                    // A local sender is told by `send` already.
                    let refused = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                    let is_refused = over_udp.as_ref().is_err_and(|error| refused.contains(error));
                    assert!(is_refused, "{mode} {to} {over_udp:?}\n{}", fixture.rules());
                } else {
                    assert!(over_tcp.is_ok() && over_udp.is_ok(), "{mode} {to} {over_tcp:?} {over_udp:?}");
                }
            }
        }
        fixture.apply(Objects::default().ruleset());
        assert!(!fixture.rules().contains("10.96.0.1"), "{mode}: {}", fixture.rules());
    });
}

#[test]
fn nftables_refuses_a_port_of_a_cluster_ip_that_no_service_has() {
    on_every_backend("nftables_refuses", |fixture| {
        fixture.apply(Objects::default().with("s", &spec(""), &[(PORTS, ONE)]).ruleset());
        if fixture.mode == wherry_proxy::ProxyMode::Nftables {
            for from in [&fixture.node, &fixture.one, &fixture.outside] {
                assert_eq!(tcp(from, "10.96.0.1:81"), Err(ErrorKind::ConnectionRefused));
            }
        }
    });
}

#[test]
fn a_client_stays_with_its_endpoint_while_it_is_there_and_until_its_time_is_over() {
    on_every_backend("a_client_stays", |fixture| {
        let Fixture { node, outside, mode, .. } = fixture;
        let affinity = |seconds: u32| {
            spec(&format!(
                r#""sessionAffinity":"ClientIP","sessionAffinityConfig":{{"clientIP":{{"timeoutSeconds":{seconds}}}}},"#
            ))
        };
        let objects = |seconds, endpoints| {
            Objects::default().with("s", &affinity(seconds), &[(PORTS, endpoints)]).ruleset()
        };
        fixture.apply(objects(600, BOTH));
        let first = tcp(node, "10.96.0.1:80").unwrap().name;
        assert_eq!(tally(node, "10.96.0.1:80", 20), BTreeMap::from([(first.clone(), 20)]), "{mode}");
        let from_outside = tcp(outside, "192.0.2.1:30080").unwrap().name;
        assert_eq!(tally(outside, "192.0.2.1:30080", 20), BTreeMap::from([(from_outside, 20)]), "{mode}");

        // Its endpoint goes: it chooses anew, and stays there when the other is back.
        let (other, rest) = if first == "one" { ("two", TWO) } else { ("one", ONE) };
        fixture.apply(objects(600, rest));
        assert_eq!(tally(node, "10.96.0.1:80", 5), BTreeMap::from([(other.to_owned(), 5)]), "{mode}");
        fixture.apply(objects(600, BOTH));
        assert_eq!(tally(node, "10.96.0.1:80", 20), BTreeMap::from([(other.to_owned(), 20)]), "{mode}");

        // A second without a connection, and its time is over.
        fixture.apply(objects(1, BOTH));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..12 {
            seen.insert(tcp(node, "10.96.0.1:80").unwrap().name);
            if seen.len() == 2 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2100));
        }
        assert_eq!(seen.len(), 2, "{mode}");
        fixture.apply(Objects::default().with("s", &spec(""), &[(PORTS, BOTH)]).ruleset());
        assert_eq!(tally(node, "10.96.0.1:80", 30).len(), 2, "{mode}: without affinity");
        fixture.apply(Objects::default().ruleset());
    });
}

#[test]
fn policy_local_keeps_clients_addresses_and_their_traffic_on_the_node() {
    on_every_backend("policy_local", |fixture| {
        let Fixture { node, outside, two, mode, .. } = fixture;
        let external = spec(r#""externalTrafficPolicy":"Local","#);
        fixture.apply(Objects::default().with("s", &external, &[(PORTS, ONE)]).ruleset());
        for ask in [tcp, udp] {
            assert_eq!(ask(outside, "192.0.2.1:30080"), answer("one", "192.0.2.2"), "{mode}");
            assert_eq!(ask(two, "192.0.2.1:30080"), answer("one", "10.244.0.3"), "{mode}");
            assert_eq!(ask(node, "192.0.2.1:30080"), answer("one", "10.244.0.1"), "{mode}");
        }

        // No endpoint here: silence for those from outside, the other nodes' endpoints for this node and its pods.
        fixture.apply(Objects::default().with("s", &external, &[(PORTS, ELSEWHERE)]).ruleset());
        assert_eq!(tcp(outside, "192.0.2.1:30080"), Err(ErrorKind::TimedOut), "{mode}");
        assert_eq!(tcp(two, "192.0.2.1:30080"), answer("one", "10.244.0.3"), "{mode}");
        assert_eq!(tcp(node, "192.0.2.1:30080"), answer("one", "10.244.0.1"), "{mode}");
        assert_eq!(
            tcp(outside, "10.96.0.1:80"),
            answer("one", "10.244.0.1"),
            "{mode}: the ClusterIP has its own policy"
        );

        let internal = spec(r#""internalTrafficPolicy":"Local","#);
        fixture.apply(Objects::default().with("s", &internal, &[(PORTS, ELSEWHERE)]).ruleset());
        assert_eq!(tcp(two, "10.96.0.1:80"), Err(ErrorKind::TimedOut), "{mode}");
        assert_eq!(tcp(outside, "192.0.2.1:30080"), answer("one", "10.244.0.1"), "{mode}");
        fixture.apply(Objects::default().with("s", &internal, &[(PORTS, ONE)]).ruleset());
        assert_eq!(tcp(two, "10.96.0.1:80"), answer("one", "10.244.0.3"), "{mode}");
    });
}

#[test]
fn a_load_balancers_address_is_served_to_its_source_ranges_only() {
    on_every_backend("a_load_balancers_address", |fixture| {
        let Fixture { node, outside, one, mode, .. } = fixture;
        let balancer = |more: &str| spec(more).replace("NodePort\"", "LoadBalancer\"");
        let apply = |more: &str| {
            fixture.apply(Objects::default().with("s", &balancer(more), &[(PORTS, TWO)]).ruleset());
        };
        apply(r#""externalIPs":["198.51.100.9"],"#);
        for to in ["198.51.100.1:80", "198.51.100.9:80"] {
            for from in [node, outside, one] {
                assert_eq!(tcp(from, to), answer("two", "10.244.0.1"), "{mode} {to}");
            }
        }
        apply(r#""loadBalancerSourceRanges":["192.0.2.0/31","10.0.0.0/8"],"#);
        assert_eq!(tcp(outside, "198.51.100.1:80"), Err(ErrorKind::TimedOut), "{mode}");
        assert_eq!(tcp(one, "198.51.100.1:80"), answer("two", "10.244.0.1"), "{mode}");
        assert_eq!(
            tcp(outside, "192.0.2.1:30080"),
            answer("two", "10.244.0.1"),
            "{mode}: the node port is not guarded"
        );
        assert!(tcp(outside, "198.51.100.9:80").is_err(), "{mode}: an external IP that is gone");
        let nobody = balancer(r#""loadBalancerSourceRanges":["192.0.2.0/29"],"#);
        fixture.apply(Objects::default().with("s", &nobody, &[(PORTS, "[]")]).ruleset());
        assert_eq!(
            tcp(outside, "198.51.100.1:80"),
            Err(ErrorKind::ConnectionRefused),
            "{mode}: no endpoints"
        );
        apply(r#""loadBalancerSourceRanges":["192.0.2.0/29"],"externalTrafficPolicy":"Local","#);
        assert_eq!(tcp(outside, "198.51.100.1:80"), answer("two", "192.0.2.2"), "{mode}");
    });
}

#[test]
fn ipv6_is_served_as_ipv4_is() {
    on_every_backend("ipv6", |fixture| {
        let Fixture { node, outside, one, two, mode, .. } = fixture;
        let spec = |more: &str| {
            format!(
                r#"{{"clusterIP":"fd00:96::1","clusterIPs":["fd00:96::1"],"type":"NodePort",{more}
                    "ports":[{{"name":"tcp","port":80,"nodePort":30080}},{{"name":"udp","port":80,"protocol":"UDP","nodePort":30080}}]}}"#
            )
        };
        let endpoints = r#"[{"addresses":["fd00:244::3"],"nodeName":"n1"}]"#;
        fixture.apply(Objects::default().with("s", &spec(""), &[(PORTS, endpoints)]).ruleset());
        for ask in [tcp, udp] {
            assert_eq!(ask(one, "[fd00:96::1]:80"), answer("two", "fd00:244::2"), "{mode}");
            assert_eq!(ask(two, "[fd00:96::1]:80").unwrap().name, "two", "{mode}");
            for (from, to) in
                [(node, "[fd00:96::1]:80"), (outside, "[fd00:96::1]:80"), (outside, "[2001:db8::1]:30080")]
            {
                assert_eq!(ask(from, to), answer("two", "fd00:244::1"), "{mode} {to}");
            }
        }
        let sticky = r#""sessionAffinity":"ClientIP","externalTrafficPolicy":"Local","#;
        fixture.apply(Objects::default().with("s", &spec(sticky), &[(PORTS, endpoints)]).ruleset());
        assert_eq!(tcp(outside, "[2001:db8::1]:30080"), answer("two", "2001:db8::2"), "{mode}");
        assert_eq!(tcp(outside, "[2001:db8::1]:30080"), answer("two", "2001:db8::2"), "{mode}");
        fixture.apply(Objects::default().with("s", &spec(""), &[(PORTS, "[]")]).ruleset());
        assert_eq!(tcp(one, "[fd00:96::1]:80"), Err(ErrorKind::ConnectionRefused), "{mode}");
    });
}

#[test]
fn a_udp_client_of_an_endpoint_that_is_gone_is_answered_by_another_and_connections_stay() {
    on_every_backend("a_udp_client", |fixture| {
        let Fixture { one, node, mode, .. } = fixture;
        let objects = |endpoints| Objects::default().with("s", &spec(""), &[(PORTS, endpoints)]).ruleset();
        let socket = one.run(|| UdpSocket::bind("10.244.0.2:5000").unwrap());
        let to = "10.96.0.1:80".parse().unwrap();
        fixture.apply(objects("[]"));
        assert_eq!(ask(&socket, to), Err(ErrorKind::ConnectionRefused), "{mode}");
        fixture.apply(objects(TWO));
        let local: IpAddr = "10.244.0.2".parse().unwrap();
        assert_eq!(ask(&socket, to), Ok(Answer { name: "two".to_owned(), client: local }), "{mode}");
        // An open connection outlives the change.
        let mut stream = node.run(|| std::net::TcpStream::connect("10.96.0.1:80").unwrap());
        fixture.apply(objects(ONE));
        assert_eq!(ask(&socket, to).unwrap().name, "one", "{mode}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        assert!(text.starts_with("two "), "{mode}: {text}");
    });
}

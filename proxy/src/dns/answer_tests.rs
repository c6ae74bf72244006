use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};

use super::*;

fn namespace(name: &str) -> Namespace {
    serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
}

fn service(name: &str, spec: &str) -> Service {
    let text = format!(r#"{{"metadata":{{"name":"{name}","namespace":"ns"}},"spec":{spec}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn slice(name: &str, service: &str, ports: &str, endpoints: &str) -> EndpointSlice {
    let text = format!(
        r#"{{"addressType":"IPv4","metadata":{{"name":"{name}","namespace":"ns","labels":{{"kubernetes.io/service-name":"{service}"}}}},
            "ports":{ports},"endpoints":{endpoints}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

const PORTS: &str =
    r#"[{"name":"http","port":80,"protocol":"TCP"},{"name":"dns","port":53,"protocol":"UDP"},{"port":9}]"#;

fn index() -> Index {
    let mut index = Index::default();
    index.add_namespace(&namespace("ns"));
    let both = format!(r#"{{"clusterIPs":["10.96.0.5","fd00::5"],"ports":{PORTS}}}"#);
    index.put_service(&service("web", &both));
    index.put_service(&service("old", r#"{"clusterIP":"10.96.0.6","ports":[]}"#));
    index.put_service(&service("pending", r#"{"ports":[]}"#));
    index.put_service(&service("db", r#"{"clusterIP":"None","clusterIPs":["None"]}"#));
    index.put_service(&service("empty", r#"{"clusterIP":"None"}"#));
    index.put_service(&service("eager", r#"{"clusterIP":"None","publishNotReadyAddresses":true}"#));
    index.put_service(&service("out", r#"{"type":"ExternalName","externalName":"API.example.com"}"#));
    let endpoints = r#"[
        {"addresses":["10.1.0.1"],"hostname":"db-0","conditions":{"ready":true}},
        {"addresses":["10.1.0.2"],"conditions":{"ready":true}},
        {"addresses":["10.1.0.3"],"hostname":"db-2","conditions":{"ready":false}}]"#;
    let port = r#"[{"name":"sql","port":5432,"protocol":"TCP"},{"name":"","port":1}]"#;
    index.put_slice(&slice("db-a", "db", port, endpoints));
    let six = r#"[{"addresses":["fd00:1::7"],"hostname":"db-0"}]"#;
    index.put_slice(&slice("db-b", "db", port, six));
    let waiting = r#"[{"addresses":["10.1.0.9"],"conditions":{"ready":false}}]"#;
    index.put_slice(&slice("eager-a", "eager", "[]", waiting));
    index.put_slice(&slice("empty-a", "empty", "[]", waiting));
    index.put_slice(&slice("web-a", "web", "[]", r#"[{"addresses":["10.1.0.4"],"hostname":"web-0"}]"#));
    index.put_slice(&slice("nobody-a", "nobody", port, endpoints));
    index
}

fn zone() -> Zone {
    let ranges = ["10.96.0.0/16", "10.1.0.0/16", "fd00::/16"].map(|range| range.parse().unwrap());
    Zone::new("cluster.local", Some("10.96.0.10".parse().unwrap()), ranges.into()).unwrap()
}

/// One line an answer: what the records say, sorted, or what there is in their place.
fn said(index: &Index, name: &str, kind: RecordType) -> String {
    let name = Name::from_ascii(name).unwrap();
    let data = |records: &[Record]| {
        let mut data: Vec<String> = records.iter().map(|record| record.data.to_string()).collect();
        data.sort();
        data.join(" | ")
    };
    match zone().answer(index, &name, kind) {
        Answer::Records { answers, additionals } if additionals.is_empty() => data(&answers),
        Answer::Records { answers, additionals } => format!("{} + {}", data(&answers), data(&additionals)),
        Answer::Alias(alias) => format!("alias {}", alias.data),
        Answer::NoData => "NODATA".to_owned(),
        Answer::NoName => "NXDOMAIN".to_owned(),
        Answer::Elsewhere => "elsewhere".to_owned(),
    }
}

#[test]
fn every_record_of_the_specification_is_answered() {
    use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    let index = index();
    for (name, kind, expected) in [
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("dns-version.cluster.local.", A, "NODATA"),
        // A Service with ClusterIPs.
        ("web.ns.svc.cluster.local.", A, "10.96.0.5"),
        ("WEB.Ns.svc.CLUSTER.local.", A, "10.96.0.5"),
        ("web.ns.svc.cluster.local.", AAAA, "fd00::5"),
        ("web.ns.svc.cluster.local.", ANY, "10.96.0.5 | fd00::5"),
        ("web.ns.svc.cluster.local.", MX, "NODATA"),
        ("old.ns.svc.cluster.local.", A, "10.96.0.6"),
        ("old.ns.svc.cluster.local.", AAAA, "NODATA"),
        ("pending.ns.svc.cluster.local.", A, "NXDOMAIN"),
        ("absent.ns.svc.cluster.local.", A, "NXDOMAIN"),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            SRV,
            "0 100 80 web.ns.svc.cluster.local. + 10.96.0.5 | fd00::5",
        ),
        (
            "_dns._udp.web.ns.svc.cluster.local.",
            SRV,
            "0 100 53 web.ns.svc.cluster.local. + 10.96.0.5 | fd00::5",
        ),
        ("_dns._tcp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_http._tcp.web.ns.svc.cluster.local.", A, "NODATA"),
        ("_tcp.web.ns.svc.cluster.local.", SRV, "NODATA"),
        ("_sctp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("http.tcp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("5.0.96.10.in-addr.arpa.", PTR, "web.ns.svc.cluster.local."),
        (
            "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "web.ns.svc.cluster.local.",
        ),
        ("5.0.96.10.in-addr.arpa.", A, "NODATA"),
        // A pod that says its name is found under the Service, whatever its kind.
        ("web-0.web.ns.svc.cluster.local.", A, "10.1.0.4"),
        ("web-1.web.ns.svc.cluster.local.", A, "NXDOMAIN"),
        ("4.0.1.10.in-addr.arpa.", PTR, "web-0.web.ns.svc.cluster.local."),
        // A headless Service.
        ("db.ns.svc.cluster.local.", A, "10.1.0.1 | 10.1.0.2"),
        ("db.ns.svc.cluster.local.", AAAA, "fd00:1::7"),
        ("db-0.db.ns.svc.cluster.local.", A, "10.1.0.1"),
        ("db-0.db.ns.svc.cluster.local.", AAAA, "fd00:1::7"),
        ("10-1-0-2.db.ns.svc.cluster.local.", A, "10.1.0.2"),
        ("10-1-0-2.db.ns.svc.cluster.local.", AAAA, "NODATA"),
        ("db-2.db.ns.svc.cluster.local.", A, "NXDOMAIN"),
        ("empty.ns.svc.cluster.local.", A, "NXDOMAIN"),
        ("eager.ns.svc.cluster.local.", A, "10.1.0.9"),
        ("nobody.ns.svc.cluster.local.", A, "NXDOMAIN"),
        (
            "_sql._tcp.db.ns.svc.cluster.local.",
            SRV,
            "0 50 5432 10-1-0-2.db.ns.svc.cluster.local. | 0 50 5432 db-0.db.ns.svc.cluster.local. + 10.1.0.1 | 10.1.0.2 | fd00:1::7",
        ),
        ("1.0.1.10.in-addr.arpa.", PTR, "db-0.db.ns.svc.cluster.local."),
        ("2.0.1.10.in-addr.arpa.", PTR, "10-1-0-2.db.ns.svc.cluster.local."),
        ("3.0.1.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("1.10.in-addr.arpa.", PTR, "NODATA"),
        ("4.3.2.1.in-addr.arpa.", PTR, "elsewhere"),
        // Another name.
        ("out.ns.svc.cluster.local.", A, "alias api.example.com."),
        ("out.ns.svc.cluster.local.", CNAME, "alias api.example.com."),
        ("x.out.ns.svc.cluster.local.", A, "NXDOMAIN"),
        // Pods by address.
        ("10-1-0-77.ns.pod.cluster.local.", A, "10.1.0.77"),
        ("10-1-0-77.ns.pod.cluster.local.", AAAA, "NODATA"),
        ("fd00--9.ns.pod.cluster.local.", AAAA, "fd00::9"),
        ("10-1-0-77.other.pod.cluster.local.", A, "NXDOMAIN"),
        ("10-1-0.ns.pod.cluster.local.", A, "NXDOMAIN"),
        // Names with something below them, and the zone itself.
        ("ns.svc.cluster.local.", A, "NODATA"),
        ("other.svc.cluster.local.", A, "NXDOMAIN"),
        ("svc.cluster.local.", A, "NODATA"),
        ("pod.cluster.local.", A, "NODATA"),
        ("cluster.local.", A, "NODATA"),
        ("cluster.local.", NS, "ns.dns.cluster.local. + 10.96.0.10"),
        ("cluster.local.", SOA, "ns.dns.cluster.local. hostmaster.cluster.local. 14 7200 1800 86400 5"),
        ("ns.dns.cluster.local.", A, "10.96.0.10"),
        ("web.cluster.local.", A, "NXDOMAIN"),
        ("example.com.", A, "elsewhere"),
        ("xcluster.local.", A, "elsewhere"),
    ] {
        assert_eq!(said(&index, name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn a_change_touches_what_it_is_about_and_leaves_nothing_behind() {
    let mut index = index();
    // The address moves from one Service to another, in whichever order that is seen.
    index.put_service(&service("next", r#"{"clusterIP":"10.96.0.6","ports":[]}"#));
    index.remove_service(&service("old", "{}"));
    assert_eq!(said(&index, "6.0.96.10.in-addr.arpa.", RecordType::PTR), "next.ns.svc.cluster.local.");
    // A Service becomes headless, and has its endpoints' addresses.
    index.put_service(&service("web", r#"{"clusterIP":"None"}"#));
    assert_eq!(said(&index, "web.ns.svc.cluster.local.", RecordType::A), "10.1.0.4");
    assert_eq!(said(&index, "5.0.96.10.in-addr.arpa.", RecordType::PTR), "NXDOMAIN");
    // A slice is given to another Service.
    let endpoint = r#"[{"addresses":["10.1.0.4"]}]"#;
    index.put_slice(&slice("web-a", "empty", "[]", endpoint));
    assert_eq!(said(&index, "web.ns.svc.cluster.local.", RecordType::A), "NXDOMAIN");
    assert_eq!(said(&index, "empty.ns.svc.cluster.local.", RecordType::A), "10.1.0.4");
    // The same address in two slices of a Service, of which one goes.
    index.put_slice(&slice("web-b", "empty", "[]", endpoint));
    index.remove_slice(&slice("web-a", "empty", "[]", endpoint));
    assert_eq!(said(&index, "empty.ns.svc.cluster.local.", RecordType::A), "10.1.0.4");
    assert_eq!(
        said(&index, "4.0.1.10.in-addr.arpa.", RecordType::PTR),
        "10-1-0-4.empty.ns.svc.cluster.local."
    );
    index.remove_slice(&slice("web-b", "empty", "[]", endpoint));
    assert_eq!(said(&index, "4.0.1.10.in-addr.arpa.", RecordType::PTR), "NXDOMAIN");
    index.remove_namespace(&namespace("ns"));
    assert_eq!(said(&index, "ns.svc.cluster.local.", RecordType::A), "NXDOMAIN");
}

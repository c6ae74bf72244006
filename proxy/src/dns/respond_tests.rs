use hickory_proto::op::Query;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use super::super::upstream::Options;
use super::*;

fn responder() -> Responder {
    let mut index = Index::default();
    let service = |name: &str, spec: serde_json::Value| -> Service {
        let metadata = serde_json::json!({"name": name, "namespace": "ns"});
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    index.put_service(&service("web", serde_json::json!({"clusterIP": "10.96.0.5"})));
    index.put_service(&service("many", serde_json::json!({"clusterIP": "None"})));
    let alias = |to: &str| serde_json::json!({"type": "ExternalName", "externalName": to});
    index.put_service(&service("inside", alias("web.ns.svc.cluster.local")));
    index.put_service(&service("nowhere", alias("absent.ns.svc.cluster.local")));
    index.put_service(&service("round", alias("round.ns.svc.cluster.local")));
    index.put_service(&service("outside", alias("example.com")));
    let endpoints: Vec<_> =
        (0..120).map(|number| serde_json::json!({"addresses": [format!("10.1.0.{number}")]})).collect();
    let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "many-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [],
    }))
    .unwrap();
    index.put_slice(&slice);
    let upstream = Upstream::new(Options {
        resolv_conf: "/nonexistent".into(),
        own: Vec::new(),
        listen: "127.0.0.1:53".parse().unwrap(),
    });
    Responder {
        zone: Zone::new("cluster.local", None, Vec::new()).unwrap(),
        index: Arc::new(RwLock::new(index)),
        upstream,
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ready(responder: &Responder, question: &Message) -> Message {
    match responder.begin(&question.to_vec().unwrap()).unwrap() {
        Response::Ready(response) => response,
        Response::Pending(_, name, _) => panic!("{name} is asked for elsewhere"),
    }
}

#[test]
fn responses_say_what_there_is_and_who_says_so() {
    let responder = responder();
    for (name, code, answers, authorities) in [
        ("web.ns.svc.cluster.local.", ResponseCode::NoError, 1, 0),
        ("many.ns.svc.cluster.local.", ResponseCode::NoError, 120, 0),
        ("absent.ns.svc.cluster.local.", ResponseCode::NXDomain, 0, 1),
        ("cluster.local.", ResponseCode::NoError, 0, 1),
        // Aliases are followed within the cluster: the end of the chain says how it ends.
        ("inside.ns.svc.cluster.local.", ResponseCode::NoError, 2, 0),
        ("nowhere.ns.svc.cluster.local.", ResponseCode::NXDomain, 1, 1),
        ("round.ns.svc.cluster.local.", ResponseCode::ServFail, MAX_ALIASES, 0),
    ] {
        let response = ready(&responder, &question(name, RecordType::A));
        assert_eq!(response.metadata.response_code, code, "{name}");
        assert_eq!((response.answers.len(), response.authorities.len()), (answers, authorities), "{name}");
        assert!(response.metadata.authoritative && response.metadata.recursion_available, "{name}");
        assert_eq!((response.metadata.id, response.queries.len()), (7, 1), "{name}");
    }
}

#[test]
fn the_name_is_given_back_in_the_letters_in_which_it_was_asked_for() {
    let response = ready(&responder(), &question("WeB.ns.SVC.cluster.local.", RecordType::A));
    assert_eq!(response.answers[0].name.to_string(), "WeB.ns.SVC.cluster.local.");
}

#[test]
fn what_cannot_be_answered_is_refused_in_so_many_words() {
    let responder = responder();
    let mut notify = question("web.ns.svc.cluster.local.", RecordType::A);
    notify.metadata.op_code = OpCode::Notify;
    let mut two = question("web.ns.svc.cluster.local.", RecordType::A);
    two.add_query(two.queries[0].clone());
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut newer = question("web.ns.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    let mut not_recursive = question("example.com.", RecordType::A);
    not_recursive.metadata.recursion_desired = false;
    let transfer = question("cluster.local.", RecordType::AXFR);
    for (request, code) in [
        (notify, ResponseCode::NotImp),
        (two, ResponseCode::FormErr),
        (chaos, ResponseCode::Refused),
        (newer, ResponseCode::BADVERS),
        (not_recursive, ResponseCode::Refused),
        (transfer, ResponseCode::Refused),
    ] {
        assert_eq!(ready(&responder, &request).metadata.response_code, code, "{request:?}");
    }
    let mut response = question("web.ns.svc.cluster.local.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert!(responder.begin(&response.to_vec().unwrap()).is_none());
    assert!(responder.begin(&[]).is_none());
    match responder.begin(&[1, 2, 0, 0, 0, 9]) {
        Some(Response::Ready(response)) => {
            assert_eq!((response.metadata.id, response.metadata.response_code), (258, ResponseCode::FormErr));
        }
        _ => panic!("a broken question is answered"),
    }
}

#[tokio::test]
async fn names_of_others_are_asked_for_elsewhere_and_their_absence_is_no_answer() {
    let responder = responder();
    for (name, answers) in [("example.com.", 0), ("outside.ns.svc.cluster.local.", 1)] {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        let Some(Response::Pending(response, asked, kind)) = responder.begin(&bytes) else {
            panic!("{name} is answered at once");
        };
        assert_eq!((asked.to_string().as_str(), kind), ("example.com.", RecordType::A));
        let response = responder.complete(*response, &asked, kind).await;
        assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(response.answers.len(), answers);
    }
}

#[test]
fn a_response_that_is_too_large_for_udp_says_so() {
    let responder = responder();
    let mut request = question("many.ns.svc.cluster.local.", RecordType::A);
    for (edns, whole) in
        [(None, false), (Some(1232), false), (Some(4096), true), (Some(65000), true), (Some(1), false)]
    {
        request.edns = edns.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let limit = udp_limit(&request.to_vec().unwrap());
        let bytes = encode(ready(&responder, &request), limit).unwrap();
        assert!(bytes.len() <= usize::from(limit), "{} of {limit}", bytes.len());
        let response = Message::from_vec(&bytes).unwrap();
        assert_eq!(response.metadata.truncation, !whole, "{edns:?}");
        assert_eq!(response.answers.len(), if whole { 120 } else { 0 }, "{edns:?}");
        assert_eq!(response.edns.is_some(), edns.is_some());
    }
    assert!(encode(ready(&responder, &request), u16::MAX).unwrap().len() > 1500);
}

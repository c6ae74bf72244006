//! HTTP guests: served at the pod's address, an instance per request.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use wherry_runtimes::{ContainerConfig, ContainerState, Error, KeyValue, RuntimeService};

use super::fixture::{Fixture, Pod, command, container, eventually, with_memory};

type Answer = (StatusCode, String);

async fn send<B>(address: &str, request: Request<B>) -> Result<Answer, String>
where
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    driver.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn get(pod: &Pod, path: &str) -> Answer {
    let request = Request::get(path).header("host", "test").body(Full::new(Bytes::new())).unwrap();
    send(&format!("{}:8080", pod.ip), request).await.unwrap()
}

async fn served(fixture: &Fixture, annotations: &[(&str, &str)]) -> (Pod, String) {
    let pod = fixture.pod(annotations).await;
    let id = fixture.start_container(&pod, container("http-guest")).await;
    (pod, id)
}

#[tokio::test]
async fn requests_are_answered_by_fresh_instances_and_an_idle_guest_holds_none() {
    let fixture = Fixture::start("127.70.20.0/24").await;
    let (pod, id) = served(&fixture, &[]).await;
    assert_eq!(get(&pod, "/x").await, (StatusCode::OK, "hello from /x\n".to_owned()));
    for _ in 0..3 {
        assert_eq!(get(&pod, "/count").await.1, "0\n");
    }
    eventually("instances are gone", || async {
        let stats = fixture.runtime.container_stats(&id).await.unwrap();
        stats.memory.unwrap().working_set_bytes == Some(0)
    })
    .await;
    let stats = fixture.runtime.container_stats(&id).await.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap() > 0);
}

#[tokio::test]
async fn a_trap_fails_its_own_request_only() {
    let fixture = Fixture::start("127.70.21.0/24").await;
    let (pod, id) = served(&fixture, &[]).await;
    let bad = async {
        for path in ["/trap", "/silent", "/trap"] {
            assert_eq!(get(&pod, path).await.0, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        }
    };
    let good = async {
        for _ in 0..20 {
            assert_eq!(get(&pod, "/").await.0, StatusCode::OK);
        }
    };
    tokio::join!(bad, good);
    assert_eq!(get(&pod, "/late-trap").await, (StatusCode::OK, "before the trap\n".to_owned()));
    let status = fixture.runtime.container_status(&id).await.unwrap();
    assert_eq!(status.state, ContainerState::Running);
    eventually("the traps are in the log", || async {
        let log = fixture.log(&status).join("\n");
        log.contains("GET /trap") && log.contains("unreachable") && log.contains("after its response began")
    })
    .await;
}

#[tokio::test]
async fn a_guest_that_spins_times_out_and_the_others_are_served_meanwhile() {
    let fixture = Fixture::start("127.70.22.0/24").await;
    let (pod, _) = served(&fixture, &[]).await;
    let spinning = async {
        let answers = tokio::join!(get(&pod, "/spin"), get(&pod, "/spin"), get(&pod, "/spin"));
        for answer in [answers.0, answers.1, answers.2] {
            assert!(answer.0.is_server_error(), "{answer:?}");
        }
    };
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // There are fewer threads than spinning guests: without their yielding nobody would ever answer.
        for _ in 0..5 {
            assert_eq!(get(&pod, "/").await.0, StatusCode::OK);
        }
    };
    tokio::join!(spinning, others);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let fixture = Fixture::start("127.70.23.0/24").await;
    let (pod, _) = served(&fixture, &[]).await;
    let chunks: Vec<Bytes> = (0..64_u8).map(|n| Bytes::from(vec![b'a' + n % 26; 16 * 1024])).collect();
    let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
    let frames = futures::stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))));
    let request = Request::post("/echo").header("host", "test").body(StreamBody::new(frames)).unwrap();
    let (status, body) = send(&format!("{}:8080", pod.ip), request).await.unwrap();
    assert_eq!((status, body.as_bytes() == expected), (StatusCode::OK, true));
}

#[tokio::test]
async fn the_memory_limit_holds_for_all_requests_of_a_container_together() {
    let fixture = Fixture::start("127.70.24.0/24").await;
    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, with_memory(container("http-guest"), 24)).await;
    assert_eq!(get(&pod, "/memory?8").await, (StatusCode::OK, format!("{} bytes\n", 8 << 20)));
    assert_eq!(get(&pod, "/memory?64").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&pod, "/").await.0, StatusCode::OK);
    let status = fixture.runtime.container_status(&id).await.unwrap();
    eventually("the log says why", || async {
        fixture.log(&status).iter().any(|line| line.contains("memory limit of 25165824 bytes exceeded"))
    })
    .await;
}

#[tokio::test]
async fn requests_that_do_not_fit_the_limit_together_wait_for_each_other() {
    let fixture = Fixture::start("127.70.31.0/24").await;
    let pod = fixture.pod(&[]).await;
    fixture.start_container(&pod, with_memory(container("http-guest"), 24)).await;
    let answers = futures::future::join_all((0..12).map(|_| get(&pod, "/memory?12"))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
}

#[tokio::test]
async fn only_granted_hosts_are_reached() {
    let fixture = Fixture::start("127.70.25.0/24").await;
    let (target, _) = served(&fixture, &[]).await;
    // A service of the machine on its own loopback, which no guest may ever see.
    let private = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let private = private.local_addr().unwrap();
    let allowed = format!("{},127.0.0.1,localhost,*", target.ip);
    let (granted, _) = served(&fixture, &[("wherry.dev/allowed-outbound-hosts", allowed.as_str())]).await;
    let (bare, id) = served(&fixture, &[]).await;
    let to_target = format!("/get?{}:8080/there", target.ip);
    assert_eq!(get(&granted, &to_target).await.1, "200: hello from /there\n\n");
    for (pod, path, refused) in [
        (&bare, to_target.clone(), "HttpRequestDenied"),
        // Its own loopback, on which nobody listens.
        (&granted, format!("/get?{private}/"), "ConnectionRefused"),
        (&granted, format!("/get?localhost:{}/", private.port()), "ConnectionRefused"),
        (&bare, format!("/get?{private}/"), "ConnectionRefused"),
        (&bare, "/get?example.com/".to_owned(), "HttpRequestDenied"),
    ] {
        let answer = get(pod, &path).await.1;
        assert!(answer.contains(refused), "{path}: {answer}");
    }
    assert_eq!(get(&bare, "/get?127.0.0.1:8080/own").await.1, "200: hello from /own\n\n");
    // Service addresses need no grant: nobody listens there now, and that is what the guest is told.
    let answer = get(&bare, "/get?127.71.0.1:80/").await.1;
    assert!(answer.contains("Connection"), "{answer}");
    let status = fixture.runtime.container_status(&id).await.unwrap();
    let log = fixture.log(&status).join("\n");
    assert!(log.contains("wherry.dev/allowed-outbound-hosts"), "{log}");
}

#[tokio::test]
async fn the_port_environment_and_log_are_those_of_the_container() {
    let fixture = Fixture::start("127.70.26.0/24").await;
    let pod = fixture.pod(&[]).await;
    let ports = r#"[{"name":"http","containerPort":9090,"protocol":"TCP"}]"#;
    let config = ContainerConfig {
        annotations: [("io.kubernetes.container.ports".to_owned(), ports.to_owned())].into(),
        envs: vec![KeyValue { key: "GREETING".to_owned(), value: "moin".to_owned() }],
        ..container("http-guest")
    };
    let id = fixture.start_container(&pod, config).await;
    let request = |path: &str| Request::get(path).header("host", "t").body(Full::new(Bytes::new())).unwrap();
    let address = format!("{}:9090", pod.ip);
    assert_eq!(send(&address, request("/env?GREETING")).await.unwrap().1, "moin\n");
    assert_eq!(send(&address, request("/print?me")).await.unwrap().1, "printed\n");
    let status = fixture.runtime.container_status(&id).await.unwrap();
    eventually("it is in the log", || async {
        fixture.log(&status).contains(&"stdout F printed by me".to_owned())
    })
    .await;
    // A second server on the same port of the pod cannot start, and says so.
    let mut second = container("http-guest");
    second.metadata.name = "second".to_owned();
    second.annotations = [("io.kubernetes.container.ports".to_owned(), ports.to_owned())].into();
    let second = fixture.runtime.create_container(&pod.id, &second, &pod.config).await.unwrap();
    let refused = fixture.runtime.start_container(&second).await;
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))), "{refused:?}");
}

#[tokio::test]
async fn a_stopped_server_lets_requests_end_and_frees_its_address() {
    let fixture = Fixture::start("127.70.27.0/24").await;
    let (pod, id) = served(&fixture, &[]).await;
    let slow = async { get(&pod, "/spin").await };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        fixture.runtime.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(slow, stop);
    assert!(answer.0.is_server_error(), "the request ran into its own limit, not into the stop: {answer:?}");
    let status = fixture.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 0));
    assert!(TcpStream::connect(format!("{}:8080", pod.ip)).await.is_err());
    // At once, when there is no time: the spinning request goes with it.
    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, container("http-guest")).await;
    let request = Request::get("/spin").header("host", "t").body(Full::new(Bytes::new())).unwrap();
    let address = format!("{}:8080", pod.ip);
    let spinning = tokio::spawn(async move { send(&address, request).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    fixture.runtime.stop_pod_sandbox(&pod.id).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(fixture.runtime.container_status(&id).await.unwrap().exit_code, 137);
    // The connection goes, or there was still time to say so.
    let answer = spinning.await.unwrap();
    assert!(answer.as_ref().map_or(true, |(status, _)| status.is_server_error()), "{answer:?}");
}

#[tokio::test]
async fn a_guest_of_the_host_network_listens_at_the_node() {
    let fixture = Fixture::start("127.70.28.0/24").await;
    let mut config = fixture.pod(&[]).await.config;
    config.metadata.uid = "host".to_owned();
    let namespaces = wherry_runtimes::NamespaceOption {
        network: wherry_runtimes::NamespaceMode::Node,
        ..Default::default()
    };
    let security = wherry_runtimes::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        ..Default::default()
    };
    config.linux = Some(wherry_runtimes::LinuxPodSandboxConfig {
        security_context: Some(security),
        ..Default::default()
    });
    let id = fixture.runtime.run_pod_sandbox(&config, "").await.unwrap();
    assert_eq!(fixture.runtime.pod_sandbox_status(&id).await.unwrap().status.network, None);
    // A command guest needs no port, so this test takes none of the machine's.
    let container = fixture.runtime.create_container(&id, &command(&["prints"]), &config).await.unwrap();
    fixture.runtime.start_container(&container).await.unwrap();
    assert_eq!(fixture.ended(&container).await.exit_code, 0);
}

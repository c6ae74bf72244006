//! Commands in running containers, attachments, forwarded ports, over the runtime's own streaming server.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use wherry_runtimes::streaming::dial::{self, Answer, Target};
use wherry_runtimes::streaming::remote_command::{self, Options, Streams};
use wherry_runtimes::streaming::{IDLE_TIMEOUT, port_forward, spdy};
use wherry_runtimes::{
    AttachRequest, ContainerConfig, ContainerState, Error, ExecRequest, PortForwardRequest, Result,
    RuntimeService,
};

use super::fixture::{Fixture, command, container, with_memory};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn exec_request(container_id: &str, cmd: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: container_id.to_owned(),
        cmd: words(cmd),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    }
}

async fn dialled(url: &str, protocol: &str) -> Answer {
    let target = Target::parse(url).unwrap();
    dial::upgrade(&target, dial::spdy_headers(&[protocol])).await.unwrap()
}

/// A client of a session: what is sent as input, and both outputs with the status at the end.
async fn session(url: &str, tty: bool, input: &[u8]) -> (String, String, String) {
    let Answer::Granted(_, io) = dialled(url, remote_command::V4).await else { panic!("refused") };
    let options = Options { stdin: true, stdout: true, stderr: !tty, tty };
    let [(near_in, far_in), (near_out, far_out), (near_err, far_err)] =
        [(); 3].map(|()| tokio::io::duplex(1 << 20));
    let streams = Streams {
        stdin: Some(Box::new(far_in)),
        stdout: Some(Box::new(far_out)),
        stderr: (!tty).then(|| Box::new(far_err) as _),
        resize: None,
    };
    let talk = async |mut input_to: DuplexStream| {
        input_to.write_all(input).await.unwrap();
        input_to.shutdown().await.unwrap();
        let read = async |mut from: DuplexStream| {
            let mut text = String::new();
            from.read_to_string(&mut text).await.unwrap();
            text
        };
        tokio::join!(read(near_out), read(near_err))
    };
    let (status, (out, err)) = tokio::join!(remote_command::request(io, options, streams), talk(near_in));
    (out, err, String::from_utf8(status.unwrap()).unwrap())
}

async fn sleeping(fixture: &Fixture) -> String {
    let pod = fixture.pod(&[]).await;
    fixture.start_container(&pod, command(&["sleeps"])).await
}

#[tokio::test]
async fn a_command_is_another_instance_with_streams_and_a_code() {
    let fixture = Fixture::start("127.70.30.0/24").await;
    let id = sleeping(&fixture).await;
    let url = fixture.runtime.exec(&exec_request(&id, &["x", "prints"])).await.unwrap();
    let (out, err, status) = session(&url, false, b"").await;
    assert_eq!((out.as_str(), err.as_str()), ("hello\n", "oops\n"));
    assert!(status.contains(r#""status":"Success""#), "{status}");
    assert!(
        matches!(dialled(&url, remote_command::V4).await, Answer::Refused(code, _) if code == 404),
        "a token is good once"
    );

    let url = fixture.runtime.exec(&exec_request(&id, &["x", "exits", "3"])).await.unwrap();
    let (_, _, status) = session(&url, false, b"").await;
    assert!(status.contains(r#"{"reason":"ExitCode","message":"3"}"#), "{status}");

    let url = fixture.runtime.exec(&exec_request(&id, &["x", "traps"])).await.unwrap();
    let (_, err, status) = session(&url, false, b"").await;
    assert!(err.contains("unreachable") && status.contains(r#""message":"134""#), "{err} {status}");

    let url = fixture.runtime.exec(&exec_request(&id, &["x", "shows", "a b"])).await.unwrap();
    let (out, _, _) = session(&url, false, b"typed").await;
    assert!(out.starts_with("arg 0: x\narg 1: shows\narg 2: a b\n") && out.ends_with("stdin: 1\n"), "{out}");

    // The container's own program goes on, and its log knows nothing of all this.
    let status = fixture.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, fixture.log(&status).len()), (ContainerState::Running, 0));
}

#[tokio::test]
async fn a_terminal_is_edited_and_interrupted() {
    let fixture = Fixture::start("127.70.31.0/24").await;
    let id = sleeping(&fixture).await;
    let request = |cmd| ExecRequest { tty: true, stderr: false, ..exec_request(&id, cmd) };
    let url = fixture.runtime.exec(&request(&["x", "prints"])).await.unwrap();
    let (out, _, _) = session(&url, true, b"").await;
    assert!(out.contains("hello\r\n") && out.contains("oops\r\n"), "{out:?}");
    let url = fixture.runtime.exec(&request(&["x", "sleeps"])).await.unwrap();
    let (out, _, status) = session(&url, true, b"ab\x03").await;
    assert!(out.ends_with("ab^C") && status.contains(r#""message":"130""#), "{out:?} {status}");
}

#[tokio::test]
async fn commands_run_to_their_end_within_time_and_memory() {
    let fixture = Fixture::start("127.70.32.0/24").await;
    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, with_memory(command(&["sleeps"]), 32)).await;
    let run = async |cmd: &[&str], timeout| fixture.runtime.exec_sync(&id, &words(cmd), timeout).await;
    let output = run(&["x", "prints"], Duration::ZERO).await.unwrap();
    assert_eq!((output.stdout, output.stderr, output.exit_code), (b"hello\n".into(), b"oops\n".into(), 0));
    assert_eq!(run(&["x", "exits", "9"], Duration::from_secs(20)).await.unwrap().exit_code, 9);
    let flood = run(&["x", "floods"], Duration::ZERO).await.unwrap();
    assert_eq!(flood.stdout.len(), 3 * 30_000);

    let began = Instant::now();
    let late = run(&["x", "spins"], Duration::from_millis(200)).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let hungry = run(&["x", "grows", "64"], Duration::ZERO).await.unwrap();
    assert_eq!(hungry.exit_code, 137, "{}", String::from_utf8_lossy(&hungry.stderr));
    assert!(matches!(run(&[], Duration::ZERO).await, Err(Error::InvalidArgument(_))));
    let memory = fixture.runtime.container_stats(&id).await.unwrap().memory.unwrap();
    assert!(memory.working_set_bytes.unwrap() < 32 << 20, "what the commands had is given back");
}

#[tokio::test]
async fn commands_end_with_their_container_and_need_a_running_one() {
    let fixture = Fixture::start("127.70.33.0/24").await;
    let id = sleeping(&fixture).await;
    let url = fixture.runtime.exec(&exec_request(&id, &["x", "spins"])).await.unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fixture.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    };
    let ((_, _, status), ()) = tokio::join!(session(&url, false, b""), stop);
    assert!(status.contains(r#""message":"137""#), "{status}");
    let refused = fixture.runtime.exec(&exec_request(&id, &["x"])).await;
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))), "{refused:?}");
    let unknown = fixture.runtime.exec(&exec_request("nobody", &["x"])).await;
    assert!(unknown.unwrap_err().is_not_found());
    let pod = fixture.pod(&[]).await;
    let http = fixture.start_container(&pod, container("http-guest")).await;
    let refused: Result<String> = fixture.runtime.exec(&exec_request(&http, &["x"])).await;
    assert!(refused.unwrap_err().to_string().contains("has no command to run"));
    let nothing = ExecRequest { stdin: false, stdout: false, stderr: false, ..exec_request(&id, &["x"]) };
    assert!(fixture.runtime.exec(&nothing).await.is_err());
}

#[tokio::test]
async fn an_attached_client_sees_what_is_printed_and_types_into_the_guest() {
    let fixture = Fixture::start("127.70.34.0/24").await;
    let pod = fixture.pod(&[]).await;
    let config = ContainerConfig { stdin: true, stdin_once: true, ..command(&["shows"]) };
    let id = fixture.start_container(&pod, config).await;
    let request =
        AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let url = fixture.runtime.attach(&request).await.unwrap();
    let (out, _, status) = session(&url, false, b"x").await;
    // It reads when it is attached to; what it printed before is in its log.
    assert!(out.is_empty() || out.ends_with("stdin: 1\n"), "{out}");
    assert!(status.contains("Success"), "{status}");
    let log = fixture.log(&fixture.ended(&id).await);
    assert_eq!(log.last().map(String::as_str), Some("stdout F stdin: 1"));

    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, command(&["logs", "0"])).await;
    let request = AttachRequest { container_id: id.clone(), stdin: false, ..request };
    let url = fixture.runtime.attach(&request).await.unwrap();
    let Answer::Granted(_, io) = dialled(&url, remote_command::V4).await else { panic!("refused") };
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let streams = Streams { stdout: Some(Box::new(far)), ..Streams::default() };
    let options = Options { stdout: true, stderr: true, ..Options::default() };
    let seeing = async {
        let mut seen = [0; 14];
        near.read_exact(&mut seen).await.unwrap();
        let text = String::from_utf8(seen.to_vec()).unwrap();
        assert!(text.ends_with('\n') && text.trim().lines().all(|line| line.len() == 6), "{text:?}");
        fixture.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    };
    let (status, ()) = tokio::join!(remote_command::request(io, options, streams), seeing);
    assert!(String::from_utf8(status.unwrap()).unwrap().contains("Success"));
}

#[tokio::test]
async fn ports_of_a_pod_are_forwarded() {
    let fixture = Fixture::start("127.70.35.0/24").await;
    let pod = fixture.pod(&[]).await;
    fixture.start_container(&pod, container("http-guest")).await;
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: Vec::new() };
    let url = fixture.runtime.port_forward(&request).await.unwrap();
    let Answer::Granted(_, io) = dialled(&url, port_forward::V1).await else { panic!("refused") };
    let (client, driver) = spdy::connect(io, spdy::Role::Client, IDLE_TIMEOUT).unwrap();
    let driver = tokio::spawn(driver.run());
    for number in 0..3 {
        let id = number.to_string();
        let headers = |kind| spdy::Headers::new([("streamtype", kind), ("port", "8080"), ("requestid", &id)]);
        let _error = client.open(headers("error")).await.unwrap();
        let mut data = client.open(headers("data")).await.unwrap();
        data.write_all(b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        data.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    client.close();
    driver.await.unwrap().unwrap();
    fixture.runtime.stop_pod_sandbox(&pod.id).await.unwrap();
    assert!(fixture.runtime.port_forward(&request).await.is_err());
}

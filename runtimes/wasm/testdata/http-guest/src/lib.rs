//! One HTTP function with many behaviours, chosen by the path.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Guest);

struct Guest;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        match path {
            "/trap" => panic!("asked to"),
            "/spin" => loop {
                REQUESTS.fetch_add(1, Ordering::Relaxed);
            },
            "/silent" => {}
            "/late-trap" => {
                answer(response, "before the trap\n");
                panic!("after the response");
            }
            "/memory" => {
                let megabytes: usize = query.parse().unwrap_or(0);
                let block = vec![1_u8; megabytes << 20];
                answer(response, &format!("{} bytes\n", block.len()));
            }
            "/count" => {
                let before = REQUESTS.fetch_add(1, Ordering::Relaxed);
                answer(response, &format!("{before}\n"));
            }
            "/env" => answer(response, &format!("{}\n", std::env::var(query).unwrap_or_default())),
            "/file" => answer(response, &std::fs::read_to_string(query).unwrap_or_else(|e| format!("{e}\n"))),
            "/print" => {
                println!("printed by {query}");
                answer(response, "printed\n");
            }
            "/echo" => echo(request, response),
            "/get" => answer(response, &get(query)),
            _ => answer(response, &format!("hello from {path}\n")),
        }
    }
}

fn begin(response: ResponseOutparam) -> OutgoingBody {
    let headers = Fields::new();
    headers.set("content-type", &[b"text/plain".to_vec()]).expect("a header");
    let outgoing = OutgoingResponse::new(headers);
    let body = outgoing.body().expect("a body");
    ResponseOutparam::set(response, Ok(outgoing));
    body
}

fn answer(response: ResponseOutparam, text: &str) {
    let body = begin(response);
    let mut stream = body.write().expect("a stream");
    let _ = stream.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn echo(request: IncomingRequest, response: ResponseOutparam) {
    let incoming = request.consume().expect("a body");
    let from = incoming.stream().expect("a stream");
    let body = begin(response);
    let mut to = body.write().expect("a stream");
    while let Ok(chunk) = from.blocking_read(16 * 1024) {
        if to.write_all(&chunk).is_err() || Write::flush(&mut to).is_err() {
            break;
        }
    }
    drop(to);
    let _ = OutgoingBody::finish(body, None);
}

/// Asks `host:port/path` over plain HTTP; answers the status and the body, or the error.
fn get(target: &str) -> String {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let request = OutgoingRequest::new(Fields::new());
    let set = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(&format!("/{path}"))).is_ok();
    if !set {
        return "cannot ask that\n".to_owned();
    }
    let future = match outgoing_handler::handle(request, None) {
        Ok(future) => future,
        Err(error) => return format!("refused: {error:?}\n"),
    };
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(answer))) => {
            let mut text = Vec::new();
            if let Ok(body) = answer.consume()
                && let Ok(mut stream) = body.stream()
            {
                let _ = stream.read_to_end(&mut text);
            }
            format!("{}: {}\n", answer.status(), String::from_utf8_lossy(&text))
        }
        Some(Ok(Err(error))) => format!("failed: {error:?}\n"),
        _ => "no answer\n".to_owned(),
    }
}

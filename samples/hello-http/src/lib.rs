//! An HTTP function: says hello, and which pod says it.

use std::io::Write;

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Hello);

struct Hello;

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let pod = std::env::var("POD_NAME").unwrap_or_else(|_| "nobody".to_owned());
        let path = request.path_with_query().unwrap_or_default();
        let version = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
        answer(response, &format!("{version} from {pod}, you asked for {path}\n"));
    }
}

fn answer(response: ResponseOutparam, text: &str) {
    let headers = Fields::new();
    headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]).expect("the header is well formed");
    let outgoing = OutgoingResponse::new(headers);
    let body = outgoing.body().expect("the body is taken once");
    ResponseOutparam::set(response, Ok(outgoing));
    let mut stream = body.write().expect("the stream is taken once");
    // A client that went away is no reason to trap.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

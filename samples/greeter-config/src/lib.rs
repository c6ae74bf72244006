//! An HTTP function that is configured as Kubernetes configures programs: a ConfigMap and a Secret in the environment, and
//! the same ConfigMap as a volume, read at every request, so that a change is seen without a restart.

use std::io::Write;

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Greeter);

struct Greeter;

impl wasip2::exports::http::incoming_handler::Guest for Greeter {
    fn handle(_request: IncomingRequest, response: ResponseOutparam) {
        let mut status = 200;
        let greeting = std::fs::read_to_string("/etc/greeter/greeting").unwrap_or_else(|error| {
            status = 500;
            format!("cannot read /etc/greeter/greeting: {error}")
        });
        let from_environment = std::env::var("GREETING_AT_START").unwrap_or_else(|_| "unset".to_owned());
        // The secret itself stays here; that it arrived is all that a caller may see.
        let secret_length = std::env::var("API_KEY").map_or(0, |key| key.len());
        let text = format!(
            "greeting: {}\nat start: {from_environment}\nsecret: {secret_length} characters\n",
            greeting.trim_end()
        );
        answer(response, status, &text);
    }
}

fn answer(response: ResponseOutparam, status: u16, text: &str) {
    let outgoing = OutgoingResponse::new(Fields::new());
    outgoing.set_status_code(status).expect("the status code is valid");
    let body = outgoing.body().expect("the body is taken once");
    ResponseOutparam::set(response, Ok(outgoing));
    let mut stream = body.write().expect("the stream is taken once");
    let _ = stream.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

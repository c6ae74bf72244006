//! From a message to its response: the cluster's own names at once, others when the node's resolvers have answered.

use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom as _;

use super::answer::{Answer, Zone};
use super::index::Index;
use super::upstream::{Foreign, Upstream};

/// The longest chain of aliases that is followed. Source: CoreDNS.
const MAX_ALIASES: usize = 8;

/// The largest UDP message that is sent, bytes, whatever the client would take. Source: DNS Flag Day 2020 recommends 1232;
/// inside a cluster larger ones arrive whole.
const MAX_UDP_BYTES: u16 = 4096;

/// The largest UDP message to a client that says nothing, bytes. Source: RFC 1035, 4.2.1.
const MIN_UDP_BYTES: u16 = 512;

/// Who answers.
pub(super) struct Responder {
    pub(super) zone: Zone,
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) upstream: Upstream,
}

/// A response, or what has to be asked first.
pub(super) enum Response {
    Ready(Message),
    /// The response as far as it is known, and the name that is asked for elsewhere.
    Pending(Box<Message>, Name, RecordType),
}

impl Responder {
    /// The response to a message that came over UDP or TCP; `None` for what is no question.
    pub(super) fn begin(&self, bytes: &[u8]) -> Option<Response> {
        let request = match Message::from_vec(bytes) {
            Ok(request) => request,
            Err(_) => return malformed(bytes).map(Response::Ready),
        };
        // Responses to responses would go on for ever.
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        Some(self.respond(&request))
    }

    fn respond(&self, request: &Message) -> Response {
        let mut response = response_to(request);
        let code = match request.queries.as_slice() {
            _ if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) => ResponseCode::BADVERS,
            _ if request.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
            [query] => match query.query_class() {
                DNSClass::IN | DNSClass::ANY => {
                    return self.answer(response, query.name(), query.query_type(), request);
                }
                _ => ResponseCode::Refused,
            },
            _ => ResponseCode::FormErr,
        };
        response.metadata.response_code = code;
        Response::Ready(response)
    }

    fn answer(&self, mut response: Message, name: &Name, kind: RecordType, request: &Message) -> Response {
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            response.metadata.response_code = ResponseCode::Refused;
            return Response::Ready(response);
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut name = name.clone();
        name.set_fqdn(true);
        for _ in 0..MAX_ALIASES {
            let answer = self.zone.answer(&index, &name, kind);
            if response.answers.is_empty() {
                response.metadata.authoritative = answer != Answer::Elsewhere;
            }
            match answer {
                Answer::Records { mut answers, additionals } => {
                    answers.shuffle(&mut rand::rng());
                    // The name is given back as it was asked for.
                    response.add_answers(answers.into_iter().map(|mut record| {
                        record.name = name.clone();
                        record
                    }));
                    response.add_additionals(additionals);
                    return Response::Ready(response);
                }
                Answer::Alias(mut alias) => {
                    record_name(&mut alias, &name);
                    let target = match &alias.data {
                        RData::CNAME(target) => target.0.clone(),
                        _ => return Response::Ready(response),
                    };
                    response.add_answer(*alias);
                    if matches!(kind, RecordType::CNAME | RecordType::ANY) {
                        return Response::Ready(response);
                    }
                    name = target;
                }
                Answer::NoData => {
                    response.add_authority(self.zone.soa(&index));
                    return Response::Ready(response);
                }
                Answer::NoName => {
                    response.metadata.response_code = ResponseCode::NXDomain;
                    response.add_authority(self.zone.soa(&index));
                    return Response::Ready(response);
                }
                Answer::Elsewhere => {
                    if self.upstream.is_probe(&name) || !request.metadata.recursion_desired {
                        response.metadata.response_code = ResponseCode::Refused;
                        return Response::Ready(response);
                    }
                    return Response::Pending(Box::new(response), name, kind);
                }
            }
        }
        response.metadata.response_code = ResponseCode::ServFail;
        Response::Ready(response)
    }

    /// The whole of a response of which a part is asked for elsewhere.
    pub(super) async fn complete(&self, mut response: Message, name: &Name, kind: RecordType) -> Message {
        let Foreign { code, answers, authorities } = self.upstream.ask(name, kind).await;
        response.metadata.response_code = code;
        response.add_answers(answers);
        response.add_authorities(authorities);
        response
    }
}

fn record_name(record: &mut Record, name: &Name) {
    record.name = name.clone();
}

fn response_to(request: &Message) -> Message {
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_BYTES).set_version(0);
        response.set_edns(edns);
    }
    response
}

/// What cannot be read but has an id is answered so that its sender does not wait.
fn malformed(bytes: &[u8]) -> Option<Message> {
    let [high, low, flags, ..] = bytes else { return None };
    // The bit that says "response".
    if flags & 0x80 != 0 {
        return None;
    }
    Some(Message::error_msg(u16::from_be_bytes([*high, *low]), OpCode::Query, ResponseCode::FormErr))
}

/// The same response, which says that the server does not get round to it.
pub(super) fn overloaded(mut response: Message) -> Message {
    response.metadata.response_code = ResponseCode::ServFail;
    response
}

/// How large a response over UDP may be, bytes.
pub(super) fn udp_limit(bytes: &[u8]) -> u16 {
    let edns = Message::from_vec(bytes).ok().and_then(|message| message.edns);
    edns.map_or(MIN_UDP_BYTES, |edns| edns.max_payload().clamp(MIN_UDP_BYTES, MAX_UDP_BYTES))
}

/// The bytes of a response, at most `limit`: first what was not asked for goes, then the client is told to come by TCP.
pub(super) fn encode(mut response: Message, limit: u16) -> Option<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(limit);
    let whole = response.to_vec();
    match whole {
        Ok(bytes) if fits(&bytes) => return Some(bytes),
        _ => response.additionals.clear(),
    }
    if let Ok(bytes) = response.to_vec()
        && fits(&bytes)
    {
        return Some(bytes);
    }
    response.truncate().to_vec().ok().filter(fits)
}

#[cfg(test)]
#[path = "respond_tests.rs"]
mod tests;

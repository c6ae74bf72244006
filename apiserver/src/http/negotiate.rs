//! In which form to answer: media type, and whole object, Table or metadata only.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use wherry_machinery::status::{Reason, Status, StatusDetails};

use super::query::Query;
use crate::registry::Refusal;

/// The encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl MediaType {
    /// The text of a `Content-Type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn accepted(range: &str) -> Option<Self> {
        match range {
            "*/*" | "application/*" | "application/json" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// Into what an object is turned before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As it is.
    Object,
    /// Rows and columns; the text is the version (`v1`, `v1beta1`).
    Table(&'static str),
    /// The metadata of one object.
    PartialObject(&'static str),
    /// The metadata of a list's objects.
    PartialObjectList(&'static str),
}

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The encoding.
    pub media_type: MediaType,
    /// The shape.
    pub shape: Shape,
    /// Whether JSON is indented.
    pub pretty: bool,
}

/// Whether the path may stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// A collection, which can be watched.
    Yes,
    /// Anything else.
    No,
}

impl Form {
    /// Plain JSON.
    pub fn json() -> Self {
        Self { media_type: MediaType::Json, shape: Shape::Object, pretty: false }
    }

    /// The best form that a client accepts.
    ///
    /// # Errors
    /// 406, if there is none.
    pub fn negotiate(headers: &HeaderMap, query: &Query, streams: Streams) -> Result<Self, Refusal> {
        let pretty = wants_pretty(headers, query);
        let accept: Vec<&str> =
            headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accept = accept.join(",");
        if accept.trim().is_empty() {
            return Ok(Self { pretty, ..Self::json() });
        }
        let mut clauses: Vec<(f32, Clause<'_>)> = accept.split(',').map(Clause::parse).collect();
        clauses.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        clauses
            .iter()
            .find_map(|(_, clause)| Some((MediaType::accepted(clause.range)?, clause.shape()?)))
            .map(|(media_type, shape)| Self { media_type, shape, pretty })
            .ok_or_else(|| not_acceptable(streams))
    }

    /// The form of an error: never a Table.
    pub fn for_status(headers: &HeaderMap, query: &Query) -> Self {
        let form = Self::negotiate(headers, query, Streams::No)
            .unwrap_or_else(|_| Self { pretty: wants_pretty(headers, query), ..Self::json() });
        Self { shape: Shape::Object, ..form }
    }
}

#[derive(Debug, Default)]
struct Clause<'a> {
    range: &'a str,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> (f32, Self) {
        let mut fields = text.split(';').map(str::trim);
        let mut clause = Self { range: fields.next().unwrap_or_default(), ..Self::default() };
        let mut quality = 1.0;
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "q" => quality = value.parse().unwrap_or(1.0),
                "as" => clause.kind = value,
                "g" => clause.group = value,
                "v" => clause.version = value,
                _ => {}
            }
        }
        (quality, clause)
    }

    fn shape(&self) -> Option<Shape> {
        if self.kind.is_empty() {
            return Some(Shape::Object);
        }
        if self.group != "meta.k8s.io" {
            return None;
        }
        let version = match self.version {
            "v1" => "v1",
            "v1beta1" => "v1beta1",
            _ => return None,
        };
        match self.kind {
            "Table" => Some(Shape::Table(version)),
            "PartialObjectMetadata" => Some(Shape::PartialObject(version)),
            "PartialObjectMetadataList" => Some(Shape::PartialObjectList(version)),
            _ => None,
        }
    }
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.first("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

fn not_acceptable(streams: Streams) -> Refusal {
    let mut available = "application/json, application/yaml, application/vnd.kubernetes.protobuf".to_owned();
    if streams == Streams::Yes {
        available
            .push_str(", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch");
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
    Status::failure(Reason::NotAcceptable, message).with_details(StatusDetails::default()).into()
}

/// The encoding of a request's body.
///
/// # Errors
/// 415, if it is not one of ours.
pub fn body_media_type(headers: &HeaderMap) -> Result<MediaType, Refusal> {
    match content_type(headers) {
        "" | "application/json" => Ok(MediaType::Json),
        "application/yaml" => Ok(MediaType::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(MediaType::Protobuf),
        _ => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json, application/yaml, application/vnd.kubernetes.protobuf";
            Err(Status::failure(Reason::UnsupportedMediaType, message).into())
        }
    }
}

/// The `Content-Type` without its parameters; empty if there is none.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_best_form_they_accept() {
        let table = [
            ("", MediaType::Json, Shape::Object),
            ("*/*", MediaType::Json, Shape::Object),
            ("application/xml, */*", MediaType::Json, Shape::Object),
            ("application/json;q=0.5, application/yaml", MediaType::Yaml, Shape::Object),
            ("application/vnd.kubernetes.protobuf,application/json", MediaType::Protobuf, Shape::Object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                MediaType::Json,
                Shape::Table("v1"),
            ),
            ("application/json;as=Odd;v=v1;g=meta.k8s.io,application/json", MediaType::Json, Shape::Object),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                MediaType::Json,
                Shape::PartialObjectList("v1"),
            ),
        ];
        for (accept, media_type, shape) in table {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let form = Form::negotiate(&headers, &Query::default(), Streams::No).unwrap();
            assert_eq!((form.media_type, form.shape), (media_type, shape), "{accept}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "text/html".parse().unwrap());
        assert_eq!(Form::negotiate(&headers, &Query::default(), Streams::No).unwrap_err().code, 406);
    }
}

//! Large answers are compressed for who accepts that.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`.

use std::convert::Infallible;
use std::io::Write;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{TryStreamExt, stream};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};

/// Smaller answers are not worth it.
const THRESHOLD_BYTES: usize = 128 * 1024;

/// Whether the client takes gzip.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|clause| {
            let mut fields = clause.split(';').map(str::trim);
            fields.next() == Some("gzip") && !fields.any(|field| matches!(field, "q=0" | "q=0.0"))
        })
    })
}

/// The answer, compressed if it is large and not compressed yet. Not for streams that last: the whole body is awaited (its
/// slices are shared with the cache, so that this costs no copy).
pub(super) async fn compressed(response: Response) -> Response {
    let size = response.body().size_hint().exact();
    if size.is_some_and(|size| size < THRESHOLD_BYTES as u64)
        || response.headers().contains_key(CONTENT_ENCODING)
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let slices: Vec<Bytes> = match body.into_data_stream().try_collect().await {
        Ok(slices) => slices,
        Err(error) => {
            return Response::from_parts(
                parts,
                Body::from_stream(stream::once(async { Err::<Bytes, _>(error) })),
            );
        }
    };
    let plain =
        |slices: Vec<Bytes>| Body::from_stream(stream::iter(slices.into_iter().map(Ok::<_, Infallible>)));
    let total: usize = slices.iter().map(Bytes::len).sum();
    if total < THRESHOLD_BYTES {
        return Response::from_parts(parts, plain(slices));
    }
    let kept = slices.clone();
    let Ok(Some(small)) = tokio::task::spawn_blocking(move || gzip(&slices)).await else {
        return Response::from_parts(parts, plain(kept));
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(small))
}

/// The bytes, compressed fast rather than well.
fn gzip(slices: &[Bytes]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    for slice in slices {
        encoder.write_all(slice).ok()?;
    }
    encoder.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::BodyExt;

    use super::*;

    fn accepting(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))])
    }

    #[tokio::test]
    async fn only_large_answers_are_compressed() {
        let small = compressed(Response::new(Body::from("x"))).await;
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
        let text = "y".repeat(200_000);
        let large = compressed(Response::new(Body::from(text.clone()))).await;
        assert_eq!(large.headers()[CONTENT_ENCODING], "gzip");
        let bytes = large.into_body().collect().await.unwrap().to_bytes();
        let mut out = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut out).unwrap();
        assert_eq!(out, text);
        assert!(is_accepted(&accepting("deflate, gzip;q=0.5")) && is_accepted(&accepting("gzip")));
        assert!(!is_accepted(&accepting("gzip;q=0")) && !is_accepted(&accepting("identity")));
    }
}

//! Continue tokens: where a chunked list goes on, and at which revision.
//!
//! Source: `k8s.io/apiserver/pkg/storage/continue.go`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use wherry_machinery::status::{Reason, Status};

use crate::registry::Refusal;

const VERSION: &str = "meta.k8s.io/v1";

/// A continue token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContinueToken {
    /// The revision of the first page; -1 for a list that is no longer consistent.
    pub(super) revision: i64,
    /// The key below the list's prefix from which to go on.
    pub(super) start: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

impl ContinueToken {
    /// The token that goes on after `last`.
    pub(super) fn after(last: &str, revision: i64) -> Self {
        Self { revision, start: format!("{last}\0") }
    }

    /// The token as text.
    pub(super) fn encode(&self) -> String {
        let wire = Wire { v: VERSION.to_owned(), rv: self.revision, start: self.start.clone() };
        // A struct of text and a number always has a JSON form.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads a token.
    ///
    /// # Errors
    /// 400, as Kubernetes words it.
    pub(super) fn decode(text: &str) -> Result<Self, Refusal> {
        let invalid = |why: &str| {
            let message = format!("invalid continue token: continue key is not valid: {why}");
            Box::new(Status::bad_request(message))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(length) => length,
                base64::DecodeError::InvalidPadding => text.len(),
            };
            invalid(&format!("illegal base64 data at input byte {at}"))
        })?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| match bytes.first() {
            Some(first) if *first != b'{' => {
                invalid(&format!("invalid character '{}' looking for beginning of value", char::from(*first)))
            }
            _ => invalid("unexpected end of JSON input"),
        })?;
        if wire.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if wire.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(Self { revision: wire.rv, start: wire.start })
    }
}

/// The revision of a list's first page is gone: the client may start anew, or take the enclosed token and live with a list that
/// mixes revisions.
pub(super) fn expired(token: &ContinueToken) -> Refusal {
    let mut status = Status::failure(
        Reason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.continue_token = ContinueToken { revision: -1, start: token.start.clone() }.encode();
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_broken_ones_are_refused_in_kubernetes_words() {
        let token = ContinueToken::after("ns/a", 7);
        assert_eq!(ContinueToken::decode(&token.encode()).unwrap(), token);
        let table = [
            ("abc", "invalid character 'i' looking for beginning of value"),
            ("e30", "server does not recognize this encoded version "),
            ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0", "encoded start key empty (version meta.k8s.io/v1)"),
        ];
        for (text, why) in table {
            let message = format!("invalid continue token: continue key is not valid: {why}");
            assert_eq!(ContinueToken::decode(text).unwrap_err().message, message);
        }
    }
}

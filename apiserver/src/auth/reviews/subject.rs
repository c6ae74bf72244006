//! Who am I, and whose token is this?

use serde_json::{Value, json};
use wherry_machinery::{Status, time};

use super::{strings, text, user_info};
use crate::auth::Authenticator;
use crate::identity::Identity;
use crate::registry::Refusal;

pub(super) fn who_am_i(identity: &Identity, now_unix_seconds: i64) -> Value {
    json!({
        "metadata": {"creationTimestamp": time::format_seconds(now_unix_seconds)},
        "status": {"userInfo": user_info(identity)},
    })
}

pub(super) fn token(
    authenticator: &Authenticator,
    own_audience: &str,
    review: &Value,
    now_unix_seconds: i64,
) -> Result<Value, Refusal> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication").into());
    }
    let mut audiences = strings(spec.get("audiences"));
    if audiences.is_empty() {
        audiences.push(own_audience.to_owned());
    }
    let status = match authenticator.authenticate_token(token, &audiences, now_unix_seconds) {
        Ok(verified) => json!({
            "authenticated": true, "user": user_info(&verified.identity), "audiences": verified.audiences,
        }),
        Err(rejection) => json!({"user": {}, "error": rejection.to_string()}),
    };
    Ok(json!({"spec": spec, "status": status}))
}

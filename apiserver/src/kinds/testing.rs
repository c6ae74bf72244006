//! What the tests of kinds share.

use wherry_machinery::field::Error;

use crate::registry::strategy::RequestFacts;

/// 2026-01-02T03:04:05Z.
pub(crate) const NOW: i64 = 1_767_323_045;

/// A request by a user called `test` at [`NOW`].
pub(crate) fn facts() -> RequestFacts {
    RequestFacts { user: "test".to_owned(), now_unix_seconds: NOW, dry_run: false }
}

/// Errors as a `Status` message lists them.
pub(crate) fn messages(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

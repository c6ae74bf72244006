//! What happens around a commit beside the object's own strategy: allocation of Service IPs and node ports, for instance.

use async_trait::async_trait;
use serde_json::Value;

use super::Refusal;
use super::context::Context;

/// Something reserved for a change that is not committed yet; given back when dropped, unless kept.
#[must_use = "dropping a reservation gives back what was reserved"]
pub struct Reservation(Option<Box<dyn FnOnce() + Send>>);

impl Reservation {
    /// Nothing was reserved.
    pub fn none() -> Self {
        Self(None)
    }

    /// `give_back` is called unless the reservation is kept.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// The change was committed.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

/// The seam for what a kind needs around its commits.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// An object that was stored before this process began.
    fn adopt(&self, _object: &Value) {}

    /// Before a create (`old` is `None`) or update; after validation. May fill in the object. With `context.dry_run` the
    /// reservation is given back by the caller.
    async fn before_commit(
        &self,
        _context: &Context,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Reservation, Refusal> {
        Ok(Reservation::none())
    }

    /// After an update was committed: what `old` had and `object` has not can be released.
    fn after_update(&self, _object: &Value, _old: &Value) {}

    /// After the object is gone.
    fn after_delete(&self, _object: &Value) {}
}

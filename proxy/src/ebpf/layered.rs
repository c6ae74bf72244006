//! Two backends, one in front of the other.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Backend, BackendError, backend::Applied, rules::Ruleset};

/// Sockets in front of packets: both have all rules, and what the first serves never reaches the second.
pub struct Layered {
    front: Box<dyn Backend>,
    behind: Box<dyn Backend>,
}

impl Layered {
    /// `front` serves what it can, and `behind` the rest.
    pub fn new(front: Box<dyn Backend>, behind: Box<dyn Backend>) -> Self {
        Self { front, behind }
    }
}

#[async_trait]
impl Backend for Layered {
    /// Both are tried: where one fails, the other is still up to date.
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError> {
        let front = self.front.apply(ruleset).await;
        let behind = self.behind.apply(ruleset).await?;
        let front = front?;
        Ok(Applied { changed: front.changed.max(behind.changed), unserved: front.unserved + behind.unserved })
    }

    async fn verify(&mut self) -> Result<bool, BackendError> {
        let front = self.front.verify().await;
        let behind = self.behind.verify().await?;
        Ok(front? && behind)
    }

    async fn close(self: Box<Self>) {
        self.front.close().await;
        self.behind.close().await;
    }
}

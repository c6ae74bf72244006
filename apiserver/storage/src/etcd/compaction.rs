//! Compaction of etcd's history by one of the servers, as Kubernetes' API servers agree upon it.

use std::time::Duration;

use super::connection::Connection;
use crate::{Error, Revision};

/// Every interval, compact what was there an interval ago. Never ends.
pub(super) async fn run(connection: Connection, interval: Duration) {
    let mut known = Known { count: 0, revision: 0 };
    loop {
        tokio::time::sleep(interval).await;
        match turn(&connection, known).await {
            Ok(next) => known = next,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "etcd's history was not compacted");
            }
        }
    }
}

/// How often the servers have compacted, and where etcd was an interval ago.
#[derive(Debug, Clone, Copy)]
struct Known {
    count: i64,
    revision: Revision,
}

async fn turn(connection: &Connection, known: Known) -> Result<Known, Error> {
    let turn = connection.take_compaction_turn(known.count, known.revision).await?;
    // At the first turn it is not known what is old.
    if turn.is_ours && known.revision > 0 {
        connection.compact(known.revision).await?;
        tracing::debug!(revision = known.revision, "etcd's history was compacted");
    }
    Ok(Known { count: turn.count, revision: turn.revision })
}

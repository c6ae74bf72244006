//! The one thread that changes the store: group commit.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::batch::{Batch, Proposal, decide};
use super::file::File;
use crate::view::View;
use crate::{Change, Error, Outcome};

/// At most so many writes in one synced transaction, so that the first of them is not kept waiting.
const BATCH_WRITES: usize = 1024;

/// As many bytes; the disk takes them in about the time of a sync.
const BATCH_BYTES: usize = 8 << 20;

/// A write and where its answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) proposal: Proposal,
    pub(super) answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// Owns the file. It ends when all senders are gone and the queue is empty.
pub(super) struct Writer {
    file: File,
    view: Arc<View>,
    requests: mpsc::Receiver<Request>,
    /// A batch whose commit failed in such a way that it may be in the file all the same. Its writers were told of an
    /// error; whether it took effect is settled when the file can be opened again.
    doubtful: Option<Batch>,
}

impl Writer {
    pub(super) fn new(file: File, view: Arc<View>, requests: mpsc::Receiver<Request>) -> Self {
        Self { file, view, requests, doubtful: None }
    }

    pub(super) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let requests = self.with_all_that_wait(first);
            match self.commit(&requests) {
                Ok(outcomes) => {
                    for (request, outcome) in requests.into_iter().zip(outcomes) {
                        // The caller may have gone; the write stands.
                        let _ = request.answer.send(Ok(outcome));
                    }
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "writes failed");
                    let error = Arc::new(error);
                    for request in requests {
                        let _ = request.answer.send(Err(Error::disk("committing", Arc::clone(&error))));
                    }
                }
            }
        }
    }

    fn with_all_that_wait(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = size(&first);
        let mut requests = vec![first];
        while requests.len() < BATCH_WRITES
            && bytes < BATCH_BYTES
            && let Ok(request) = self.requests.try_recv()
        {
            bytes += size(&request);
            requests.push(request);
        }
        requests
    }

    fn commit(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, Error> {
        self.settle_doubt()?;
        let batch = decide(&self.view.read(), requests.iter().map(|request| &request.proposal));
        if batch.events.is_empty() {
            return Ok(batch.outcomes);
        }
        if let Err(error) = self.file.commit(&batch.rows(), batch.revision) {
            self.doubtful = Some(batch);
            return Err(error);
        }
        self.view.publish(batch.events, batch.revision, Instant::now());
        Ok(batch.outcomes)
    }

    /// After a failed commit: open the file again, and follow it if the batch is there after all.
    fn settle_doubt(&mut self) -> Result<(), Error> {
        let Some(batch) = &self.doubtful else { return Ok(()) };
        let revision = self.file.reopen()?;
        let published = self.view.read().revision();
        if revision != published && revision != batch.revision {
            return Err(Error::damaged(format!(
                "it is at revision {revision}, where {published} or {} was expected",
                batch.revision
            )));
        }
        if let Some(batch) = self.doubtful.take()
            && revision == batch.revision
        {
            tracing::warn!(revision, "a commit that failed was durable after all");
            self.view.publish(batch.events, batch.revision, Instant::now());
        }
        Ok(())
    }
}

fn size(request: &Request) -> usize {
    match &request.proposal.change {
        Change::Put(value) => value.len(),
        Change::Delete => 0,
    }
}

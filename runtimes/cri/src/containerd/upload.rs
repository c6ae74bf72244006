//! Blobs into containerd's content store.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{WriteAction, WriteContentRequest};
use futures::StreamExt;
use tokio::io::AsyncReadExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::archive::Descriptor;
use super::in_namespace;

/// Bytes of one message. containerd takes messages of at most 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that are read ahead of what containerd has taken.
const CHUNKS_AHEAD: usize = 4;

/// Writes one blob; containerd checks its digest and size. One that is there already is as good.
pub(super) async fn write_blob(
    channel: Channel,
    lease: &str,
    blob: &Descriptor,
    file: &Path,
    labels: HashMap<String, String>,
) -> Result<(), Status> {
    let total = i64::try_from(blob.size).map_err(|_| Status::invalid_argument("size of the blob"))?;
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    let first = WriteContentRequest {
        r#ref: format!("wherry-import-{lease}-{}", blob.digest),
        total,
        expected: blob.digest.clone(),
        ..Default::default()
    };
    let reading = async move {
        let failed = |error: std::io::Error| Status::internal(error.to_string());
        let mut file = tokio::fs::File::open(file).await.map_err(failed)?;
        let mut offset = 0_i64;
        loop {
            let mut data = vec![0; CHUNK_BYTES];
            let n = file.read(&mut data).await.map_err(failed)?;
            data.truncate(n);
            let is_last = n == 0;
            let message = WriteContentRequest {
                action: if is_last { WriteAction::Commit } else { WriteAction::Write }.into(),
                offset,
                data,
                labels: if is_last { labels.clone() } else { HashMap::new() },
                ..first.clone()
            };
            // A receiver that is gone has its own reason.
            if sender.send(message).await.is_err() || is_last {
                return Ok(());
            }
            offset += i64::try_from(n).map_err(|_| Status::internal("size of a chunk"))?;
        }
    };
    let writing = async move {
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let request = in_namespace(requests, Some(lease))?;
        let mut answers = ContentClient::new(channel).write(request).await?.into_inner();
        while let Some(answer) = answers.next().await {
            if answer?.action == i32::from(WriteAction::Commit) {
                return Ok(());
            }
        }
        Err(Status::internal("containerd ended a write without a word"))
    };
    let (read, written): (Result<(), Status>, Result<(), Status>) = futures::join!(reading, writing);
    match written {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => read.and(Err(status)),
        Ok(()) => read,
    }
}

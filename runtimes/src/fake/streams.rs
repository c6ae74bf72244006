//! Streams of the fake: a command says its own name, then what it is told; a port says everything back.

use std::sync::{Arc, PoisonError, Weak};

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;

use super::Shared;
use crate::streaming::remote_command::Streams;
use crate::streaming::spdy::Stream;
use crate::streaming::{Handler, StreamingServer};
use crate::{AttachRequest, ContainerState, Error, ExecRequest, Result};

/// Answers for a fake that may be gone.
struct Echo(Weak<Shared>);

impl Shared {
    /// The streaming server; started by the first who needs it.
    pub(super) fn streaming(self: &Arc<Self>) -> Result<Arc<StreamingServer>> {
        let mut server = self.streaming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*server {
            return Ok(Arc::clone(server));
        }
        let handler = Arc::new(Echo(Arc::downgrade(self)));
        let started = StreamingServer::start(handler, self.tasks.clone(), self.shutdown.clone());
        let started =
            started.map_err(|error| Error::Unavailable(format!("cannot serve streams: {error}")))?;
        *server = Some(Arc::clone(&started));
        Ok(started)
    }

    /// The exit code that commands in a running container end with.
    pub(super) fn exec_code(&self, container_id: &str) -> Result<i32> {
        let state = self.lock();
        let container = state.container(container_id)?;
        if container.status.state != ContainerState::Running {
            return Err(Error::FailedPrecondition(format!("container {container_id:?} is not running")));
        }
        let image = &container.config.image;
        let script =
            [&image.image, &image.user_specified_image].into_iter().find_map(|name| state.scripts.get(name));
        Ok(script.map_or(0, |script| script.exec_exit_code))
    }
}

async fn echo(mut streams: Streams, first: String) -> std::io::Result<()> {
    let Some(mut stdout) = streams.stdout.take() else { return Ok(()) };
    stdout.write_all(first.as_bytes()).await?;
    if let Some(mut stdin) = streams.stdin.take() {
        tokio::io::copy(&mut stdin, &mut stdout).await?;
    }
    stdout.shutdown().await
}

#[async_trait]
impl Handler for Echo {
    async fn exec(&self, request: &ExecRequest, streams: Streams) -> std::result::Result<i32, String> {
        let shared = self.0.upgrade().ok_or("the fake is gone")?;
        let code = shared.exec_code(&request.container_id).map_err(|error| error.to_string())?;
        let said = format!("{}\n", request.cmd.join(" "));
        echo(streams, said).await.map_err(|error| error.to_string())?;
        Ok(code)
    }

    async fn attach(&self, _: &AttachRequest, streams: Streams) -> std::result::Result<(), String> {
        echo(streams, "attached\n".to_owned()).await.map_err(|error| error.to_string())
    }

    async fn port_forward(&self, _: &str, port: u16, stream: Stream) -> std::result::Result<(), String> {
        let (mut read, mut write) = tokio::io::split(stream);
        let said = async {
            write.write_all(format!("port {port}\n").as_bytes()).await?;
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        };
        said.await.map_err(|error: std::io::Error| error.to_string())
    }
}

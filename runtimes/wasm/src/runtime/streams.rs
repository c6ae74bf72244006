//! Commands in running containers, attachments, forwarded ports.
//!
//! A command is another instance of the container's own guest, with the command as its arguments: in the same environment,
//! with the same mounts and grants, under the same limits. It ends with the container, and with its client.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use wherry_runtimes::streaming::remote_command::Streams;
use wherry_runtimes::streaming::spdy::Stream as PortStream;
use wherry_runtimes::streaming::terminal::Sizes;
use wherry_runtimes::streaming::{BoxRead, BoxWrite, Handler, StreamingServer, port_forward};
use wherry_runtimes::{
    AttachRequest, ContainerState, Error, ExecRequest, ExecSyncResponse, PodSandboxState, PortForwardRequest,
    Result, log::Stream,
};

use super::Inner;
use super::state::{LiveContainer, State};
use crate::code::Program;
use crate::guest::{
    Arguments, Ending, Grants, KILLED, Meter, Outputs, Pipe, Stdio, Terminal, Typed, run_command, shown,
};

/// Output of a command that is run to its end, of each stream. Source: CRI v1 (`ExecSyncResponse`): 16 MB.
const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of typed input that wait for the guest.
const INPUT_BYTES: usize = 64 * 1024;
/// Exit code of a guest that was ended by a signal: this and the signal's number.
const SIGNALLED: i32 = 128;

/// Asks the runtime, if it is there still.
struct Streaming(Weak<Inner>);

#[async_trait::async_trait]
impl Handler for Streaming {
    async fn exec(&self, request: &ExecRequest, streams: Streams) -> std::result::Result<i32, String> {
        let inner = self.0.upgrade().ok_or("the runtime is stopping")?;
        let session = inner.exec_streams(request, streams).await;
        session.map(|ending| ending.code).map_err(|error| error.to_string())
    }

    async fn attach(&self, request: &AttachRequest, streams: Streams) -> std::result::Result<(), String> {
        let inner = self.0.upgrade().ok_or("the runtime is stopping")?;
        inner.attach_streams(request, streams).await.map_err(|error| error.to_string())
    }

    async fn port_forward(
        &self,
        pod_sandbox_id: &str,
        port: u16,
        stream: PortStream,
    ) -> std::result::Result<(), String> {
        let inner = self.0.upgrade().ok_or("the runtime is stopping")?;
        let ip = inner.listening_ip(pod_sandbox_id).map_err(|error| error.to_string())?;
        let stopped = inner.shutdown.clone();
        drop(inner);
        let forwarding = port_forward::forward_tcp(SocketAddr::new(ip, port), stream);
        stopped.run_until_cancelled(forwarding).await.unwrap_or(Ok(()))
    }
}

impl Inner {
    /// The streaming server; started by the first who needs it, so that a node without streams has none.
    fn streaming(self: &Arc<Self>) -> Result<Arc<StreamingServer>> {
        let mut server = self.streaming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*server {
            return Ok(Arc::clone(server));
        }
        let handler = Arc::new(Streaming(Arc::downgrade(self)));
        let started = StreamingServer::start(handler, self.supervisors.clone(), self.shutdown.clone());
        let started =
            started.map_err(|error| Error::Unavailable(format!("cannot serve streams: {error}")))?;
        *server = Some(Arc::clone(&started));
        Ok(started)
    }

    pub(super) fn exec_url(self: &Arc<Self>, request: &ExecRequest) -> Result<String> {
        check_command(&request.cmd)?;
        let (live, _) = self.running(&request.container_id)?;
        runnable(&live.program)?;
        self.streaming()?.exec(request)
    }

    pub(super) fn attach_url(self: &Arc<Self>, request: &AttachRequest) -> Result<String> {
        self.running(&request.container_id)?;
        self.streaming()?.attach(request)
    }

    pub(super) fn port_forward_url(self: &Arc<Self>, request: &PortForwardRequest) -> Result<String> {
        self.listening_ip(&request.pod_sandbox_id)?;
        self.streaming()?.port_forward(request)
    }

    /// Runs a command to its end.
    pub(super) async fn exec_to_end(
        self: &Arc<Self>,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        check_command(command)?;
        let outputs = Outputs { stdout: Pipe::default(), stderr: Pipe::default() };
        let stdio = Stdio { outputs: Some(outputs.clone()), ..Stdio::default() };
        let run = async {
            let running = async {
                let ending = self.instance(container_id, command, stdio).await;
                outputs.stdout.end();
                outputs.stderr.end();
                ending
            };
            tokio::join!(running, collected(&outputs.stdout), collected(&outputs.stderr))
        };
        let (ending, stdout, stderr) = if timeout.is_zero() {
            run.await
        } else {
            tokio::time::timeout(timeout, run)
                .await
                .map_err(|_| Error::DeadlineExceeded(format!("command {:?} timed out", command.join(" "))))?
        };
        let ending = ending?;
        let mut stderr = stderr;
        // How a guest died is all that its caller can see of it.
        stderr.extend_from_slice(ending.message.as_bytes());
        Ok(ExecSyncResponse { stdout, stderr, exit_code: ending.code })
    }

    /// Runs a command with a client's streams.
    async fn exec_streams(self: &Arc<Self>, request: &ExecRequest, streams: Streams) -> Result<Ending> {
        let stdout = Pipe::default();
        let stderr = if request.tty { stdout.clone() } else { Pipe::default() };
        let outputs = Outputs { stdout: stdout.clone(), stderr: stderr.clone() };
        let (input, typing) = input(streams.stdin, request.tty, &stdout);
        let stdio = Stdio { input, outputs: Some(outputs), is_terminal: request.tty };
        let running = async {
            let ending = tokio::select! {
                ending = self.instance(&request.container_id, &request.cmd, stdio) => ending,
                signal = typing => Ok(Ending::exited(SIGNALLED + signal)),
            };
            if let Ok(ending) = &ending
                && !ending.message.is_empty()
            {
                stderr.put(Bytes::from(format!("{}\n", ending.message)));
            }
            stdout.end();
            stderr.end();
            ending
        };
        let change = if request.tty { shown } else { unchanged };
        let errors = async {
            if !request.tty {
                stderr.pour(streams.stderr, unchanged).await;
            }
        };
        let sizes = ignored_sizes(streams.resize);
        let session = async { tokio::join!(running, stdout.pour(streams.stdout, change), errors).0 };
        tokio::select! {
            ending = session => ending,
            () = sizes => Err(Error::Internal("the sizes ended the session".to_owned())),
        }
    }

    /// Runs one more instance of a container's guest, on the threads of guests.
    async fn instance(
        self: &Arc<Self>,
        container_id: &str,
        command: &[String],
        stdio: Stdio,
    ) -> Result<Ending> {
        let (live, mut ended) = self.running(container_id)?;
        runnable(&live.program)?;
        let grants = live.grants.get().cloned();
        let grants = grants
            .ok_or_else(|| Error::FailedPrecondition(format!("container {container_id:?} is starting")))?;
        let arguments = Arguments { args: command.to_vec(), ..Arguments::clone(&grants.arguments) };
        let grants = Grants { arguments: Arc::new(arguments), stdio, ..grants };
        let guests = self.guests.handle().cloned();
        let guests = guests.ok_or_else(|| Error::Unavailable("the runtime is stopping".to_owned()))?;
        let run = run_command(Arc::clone(&live.program), grants);
        let run = Meter::new(run, Arc::clone(&live.cpu), self.engines.ticking());
        let mut task = AbortOnDrop(guests.spawn(run));
        tokio::select! {
            ending = &mut task.0 => {
                Ok(ending.unwrap_or_else(|fault| Ending::trapped(&format!("a fault in the host: {fault}"))))
            }
            _ = ended.wait_for(|ended| *ended) => Ok(Ending::exited(KILLED)),
            () = live.kill.cancelled() => Ok(Ending::exited(KILLED)),
        }
    }

    /// Shows a client what the container prints from now on, and the container what the client types.
    async fn attach_streams(self: &Arc<Self>, request: &AttachRequest, streams: Streams) -> Result<()> {
        let (live, mut ended) = self.running(&request.container_id)?;
        let mut output = live.log.tap();
        let echo = Pipe::default();
        let typing = type_into(&live, streams.stdin, request.tty, &echo);
        let (mut stdout, mut stderr) = (streams.stdout, streams.stderr);
        let change = if request.tty { shown } else { unchanged };
        let showing = async {
            let mut is_over = false;
            loop {
                let piece = tokio::select! {
                    biased;
                    piece = output.recv() => piece,
                    Some(echoed) = echo.next(), if request.tty && !is_over => Ok((Stream::Stdout, echoed)),
                    _ = ended.wait_for(|ended| *ended), if !is_over => {
                        is_over = true;
                        continue;
                    }
                    () = std::future::ready(()), if is_over => return,
                };
                let (stream, bytes) = match piece {
                    Ok(piece) => piece,
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!("[{missed} pieces of output were missed]\n");
                        (Stream::Stderr, Bytes::from(text))
                    }
                    Err(RecvError::Closed) => return,
                };
                let to = if request.tty || stream == Stream::Stdout { &mut stdout } else { &mut stderr };
                if !write(to, &change(bytes)).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = showing => Ok(()),
            () = typing => Ok(()),
            () = ignored_sizes(streams.resize) => Ok(()),
        }
    }

    /// A running container.
    fn running(&self, id: &str) -> Result<(Arc<LiveContainer>, tokio::sync::watch::Receiver<bool>)> {
        let state = self.state();
        let container = state.container(id)?;
        let live = container.live.as_ref().filter(|_| container.status.state == ContainerState::Running);
        let live =
            live.ok_or_else(|| Error::FailedPrecondition(format!("container {id:?} is not running")))?;
        Ok((Arc::clone(live), container.ended.subscribe()))
    }

    /// Where the guests of a sandbox listen.
    fn listening_ip(&self, pod_sandbox_id: &str) -> Result<std::net::IpAddr> {
        let state = self.state();
        ready_ip(&state, pod_sandbox_id)
    }
}

fn ready_ip(state: &State, id: &str) -> Result<std::net::IpAddr> {
    let sandbox = state.sandbox(id)?;
    let live = sandbox.live.as_ref().filter(|_| sandbox.status.state == PodSandboxState::Ready);
    let live = live.ok_or_else(|| Error::FailedPrecondition(format!("sandbox {id:?} is not ready")))?;
    Ok(live.network.listen_ip())
}

fn check_command(command: &[String]) -> Result<()> {
    if command.is_empty() {
        return Err(Error::InvalidArgument("no command was given".to_owned()));
    }
    Ok(())
}

fn runnable(program: &Program) -> Result<()> {
    match program {
        Program::Module(_) | Program::Command(_) => Ok(()),
        Program::Http(_) => Err(Error::FailedPrecondition(
            "the guest of this container serves HTTP and has no command to run (it exports no wasi:cli/run)"
                .to_owned(),
        )),
    }
}

/// A guest's task that ends when nobody waits for it any more.
struct AbortOnDrop(tokio::task::JoinHandle<Ending>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unchanged(bytes: Bytes) -> Bytes {
    bytes
}

/// All that comes out of a pipe; beyond the limit it is dropped.
async fn collected(pipe: &Pipe) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = pipe.next().await {
        let room = MAX_OUTPUT_BYTES - all.len();
        all.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    all
}

/// Guests cannot ask for the size of their terminal; the sizes are read so that nothing waits for them.
async fn ignored_sizes(from: Option<BoxRead>) {
    if let Some(from) = from {
        let mut sizes = Sizes::new(from);
        while sizes.next().await.is_some() {}
    }
    std::future::pending().await
}

type Input = Option<Arc<std::sync::Mutex<Option<BoxRead>>>>;

/// A guest's input from a client's; with a terminal, through its line. The future ends with the signal that was typed.
fn input<'a>(
    from: Option<BoxRead>,
    tty: bool,
    echo: &'a Pipe,
) -> (Input, impl Future<Output = i32> + Send + use<'a>) {
    let (input, typed) = match from {
        Some(from) if tty => {
            let (near, far) = tokio::io::duplex(INPUT_BYTES);
            (Stdio::input(Box::new(far)), Some((from, near)))
        }
        Some(from) => (Stdio::input(from), None),
        None => (None, None),
    };
    let typing = async move {
        if let Some((from, to)) = typed
            && let Some(signal) = edit(from, to, echo).await
        {
            return signal;
        }
        std::future::pending().await
    };
    (input, typing)
}

/// Passes typed lines on until the input ends; answers the signal that was typed.
async fn edit(mut from: BoxRead, mut to: impl AsyncWrite + Unpin, echo: &Pipe) -> Option<i32> {
    let (mut terminal, mut bytes) = (Terminal::default(), vec![0; 4096]);
    loop {
        let length = from.read(&mut bytes).await.unwrap_or(0);
        let typed = if length == 0 {
            Typed { is_end: true, ..Typed::default() }
        } else {
            terminal.typed(&bytes[..length])
        };
        echo.put(Bytes::from(typed.echo));
        // A guest that reads no more still has a terminal that echoes.
        let _ = to.write_all(&typed.input).await;
        if typed.signal.is_some() {
            return typed.signal;
        }
        if typed.is_end {
            let _ = to.shutdown().await;
            return None;
        }
    }
}

/// Types into a container that was made with an input. Ends never: the input of one client is not the container's end.
async fn type_into(live: &LiveContainer, from: Option<BoxRead>, tty: bool, echo: &Pipe) {
    if let Some(from) = from {
        let mut slot = live.input.lock().await;
        if let Some(to) = slot.as_mut() {
            let signal = if tty {
                edit(from, &mut *to, echo).await
            } else {
                let mut from = from;
                let _ = tokio::io::copy(&mut from, to).await;
                let _ = to.flush().await;
                None
            };
            if signal.is_some() {
                live.kill.cancel();
            }
            if live.config.stdin_once {
                let _ = to.shutdown().await;
                *slot = None;
            }
        }
    }
    std::future::pending().await
}

async fn write(to: &mut Option<BoxWrite>, bytes: &[u8]) -> bool {
    let Some(to) = to else { return true };
    to.write_all(bytes).await.is_ok() && to.flush().await.is_ok()
}

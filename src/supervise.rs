//! Keeps components running: starts each, restarts one that ends early with a growing pause, and stops them in order.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wherry_client::{Lifecycle, lifecycle::ReadinessReport};

/// The first pause before a restart; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause before a restart.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A component that ran for so long is not blamed for what was before.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// How long a component may take to drain before it is dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// One run of a component.
pub type Run = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// The state of each component as `/readyz?verbose` shows it: `Ok` or why not.
#[derive(Debug, Clone, Default)]
pub struct Board {
    states: Arc<Mutex<BTreeMap<&'static str, State>>>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
enum State {
    Running(ReadinessReport),
    Down(String),
}

impl Board {
    /// Whether a component is ready, else why not.
    ///
    /// # Errors
    /// The reason in words.
    pub fn check(&self, name: &str) -> Result<(), String> {
        match self.states.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            None => Err("not started".to_owned()),
            Some(State::Down(reason)) => Err(reason.clone()),
            Some(State::Running(report)) if report.is_ready() => Ok(()),
            Some(State::Running(report)) => Err(report.reasons().join("; ")),
        }
    }

    /// Wait until a component is ready.
    pub async fn wait_ready(&self, name: &str) {
        let mut changed = self.changed.subscribe();
        loop {
            let report = match self.states.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
                Some(State::Running(report)) => Some(report.clone()),
                _ => None,
            };
            if let Some(mut report) = report
                && report.wait_ready().await
            {
                return;
            }
            // It ended or has not started: the next run reports anew.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, name: &'static str, state: State) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
        self.changed.send_replace(());
    }
}

/// The components that run, in the order in which they were started.
#[derive(Debug, Default)]
pub struct Supervisor {
    board: Board,
    components: Vec<(&'static str, CancellationToken, JoinHandle<()>)>,
}

impl Supervisor {
    /// Where the components' states are read.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Start a component and keep it running. `start` is called again for every restart.
    pub fn spawn(&mut self, name: &'static str, start: impl Fn(Lifecycle) -> Run + Send + 'static) {
        let shutdown = CancellationToken::new();
        let board = self.board.clone();
        board.set(name, State::Down("not started".to_owned()));
        let task = tokio::spawn(keep_running(name, board, shutdown.clone(), start));
        self.components.push((name, shutdown, task));
    }

    /// Stop every component, the one that was started last first.
    pub async fn stop(mut self) {
        while let Some((name, shutdown, task)) = self.components.pop() {
            shutdown.cancel();
            let abort = task.abort_handle();
            if tokio::time::timeout(DRAIN_TIMEOUT, task).await.is_err() {
                tracing::warn!(component = name, "did not stop in time and was dropped");
                abort.abort();
            } else {
                tracing::debug!(component = name, "stopped");
            }
        }
    }
}

async fn keep_running(
    name: &'static str,
    board: Board,
    shutdown: CancellationToken,
    start: impl Fn(Lifecycle) -> Run + Send + 'static,
) {
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let (lifecycle, report) = Lifecycle::with_shutdown(shutdown.child_token());
        let mut ready = report.clone();
        board.set(name, State::Running(report));
        let started = Instant::now();
        // A task of its own, so that a panic ends this component and no other.
        // Dropped with this one, it ends too.
        let mut run = AbortOnDropHandle::new(tokio::spawn(start(lifecycle)));
        let ended = tokio::select! {
            ended = &mut run => ended,
            is_ready = ready.wait_ready() => {
                if is_ready {
                    tracing::info!(component = name, after_ms = started.elapsed().as_millis(), "ready");
                }
                run.await
            }
        };
        if shutdown.is_cancelled() {
            break;
        }
        let reason = match ended {
            Ok(Ok(())) => "ended early".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) if error.is_panic() => "panicked".to_owned(),
            Err(_) => "was cancelled".to_owned(),
        };
        if started.elapsed() >= STABLE_AFTER {
            pause = FIRST_PAUSE;
        }
        tracing::error!(
            component = name,
            reason,
            restart_in_ms = pause.as_millis(),
            "component ended; it is started again"
        );
        board.set(name, State::Down(format!("restarting: {reason}")));
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
    board.set(name, State::Down("stopped".to_owned()));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_component_that_fails_or_panics_is_started_again_and_the_board_says_why() {
        let mut supervisor = Supervisor::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        supervisor.spawn("c", move |lifecycle| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                match run {
                    0 => anyhow::bail!("no luck"),
                    1 => panic!("worse"),
                    _ => {
                        lifecycle.readiness.set_ready();
                        lifecycle.shutdown.cancelled().await;
                        Ok(())
                    }
                }
            })
        });
        let board = supervisor.board();
        let mut seen = Vec::new();
        while board.check("c").is_err() {
            if let Err(reason) = board.check("c")
                && seen.last() != Some(&reason)
            {
                seen.push(reason);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(seen.contains(&"restarting: no luck".to_owned()), "{seen:?}");
        assert!(seen.contains(&"restarting: panicked".to_owned()), "{seen:?}");
        supervisor.stop().await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(board.check("c"), Err("stopped".to_owned()));
    }

    #[tokio::test]
    async fn components_stop_in_the_reverse_of_their_order() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::default();
        for name in ["first", "second"] {
            let order = Arc::clone(&order);
            supervisor.spawn(name, move |lifecycle| {
                let order = Arc::clone(&order);
                Box::pin(async move {
                    lifecycle.shutdown.cancelled().await;
                    order.lock().unwrap().push(name);
                    Ok(())
                })
            });
        }
        tokio::task::yield_now().await;
        supervisor.stop().await;
        assert_eq!(*order.lock().unwrap(), ["second", "first"]);
    }
}

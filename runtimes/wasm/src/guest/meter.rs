//! CPU time: counted while a guest's future is polled, and held to the container's quota.
//!
//! Guests yield at every epoch, so a poll is never much longer than one. A container that has used up its part of a
//! period is not polled again before the next one begins; the others get the worker meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::code::Ticking;

/// The period of a quota when none is given. Source: the kernel's and the kubelet's default, 100 ms.
const DEFAULT_PERIOD: Duration = Duration::from_millis(100);

/// CPU time of one container.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    used_nanos: AtomicU64,
    quota: Mutex<Quota>,
}

#[derive(Debug, Default)]
struct Quota {
    /// CPU time per period; zero means without limit.
    per_period: Duration,
    period: Duration,
    period_began: Option<Instant>,
    used: Duration,
}

impl Quota {
    /// Accounts for `used` at `now`; answers how long to wait before computing again.
    fn spend(&mut self, now: Instant, used: Duration) -> Option<Duration> {
        if self.per_period.is_zero() {
            return None;
        }
        let began = *self.period_began.get_or_insert(now);
        let since = now.saturating_duration_since(began);
        if since >= self.period {
            // What was used beyond the quota is paid from the periods that passed; what was not used does not pile up.
            let periods = u32::try_from(since.as_nanos() / self.period.as_nanos()).unwrap_or(u32::MAX);
            self.used = self.used.saturating_sub(self.per_period.saturating_mul(periods));
            self.period_began = Some(began + self.period * periods);
        }
        self.used += used;
        if self.used < self.per_period {
            return None;
        }
        let periods = u32::try_from(self.used.as_nanos() / self.per_period.as_nanos()).unwrap_or(u32::MAX);
        let until = self.period_began? + self.period * periods;
        Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Cpu {
    /// Holds the container to `quota` per `period`, both in microseconds as in CRI; a quota of zero or less lifts it.
    pub(crate) fn set_quota(&self, quota_micros: i64, period_micros: i64) {
        let positive = |micros: i64| u64::try_from(micros).ok().filter(|m| *m > 0).map(Duration::from_micros);
        let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        quota.per_period = positive(quota_micros).unwrap_or_default();
        quota.period = positive(period_micros).unwrap_or(DEFAULT_PERIOD);
        quota.period_began = None;
        quota.used = Duration::ZERO;
    }

    /// CPU time since the container was made.
    pub(crate) fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Ordering::Relaxed)
    }

    fn spend(&self, began: Instant, ended: Instant) -> Option<Duration> {
        let used = ended.saturating_duration_since(began);
        self.used_nanos.fetch_add(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.quota.lock().unwrap_or_else(PoisonError::into_inner).spend(ended, used)
    }
}

pin_project! {
    /// A guest's future, with its CPU time counted and limited, and epochs moving while it computes.
    pub(crate) struct Meter<F> {
        #[pin]
        guest: F,
        #[pin]
        pause: Option<tokio::time::Sleep>,
        cpu: Arc<Cpu>,
        ticking: Ticking,
    }
}

impl<F> Meter<F> {
    pub(crate) fn new(guest: F, cpu: Arc<Cpu>, ticking: Ticking) -> Self {
        Self { guest, pause: None, cpu, ticking }
    }
}

impl<F: Future> Future for Meter<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(pause) = this.pause.as_mut().as_pin_mut() {
            std::task::ready!(pause.poll(cx));
            this.pause.set(None);
        }
        let began = Instant::now();
        let polled = this.ticking.during(|| this.guest.poll(cx));
        let wait = this.cpu.spend(began, Instant::now());
        if polled.is_pending()
            && let Some(wait) = wait
        {
            this.pause.set(Some(tokio::time::sleep(wait)));
            // Arms the timer; if it has run out already, poll again at once.
            if let Some(pause) = this.pause.as_mut().as_pin_mut()
                && pause.poll(cx).is_ready()
            {
                this.pause.set(None);
                cx.waker().wake_by_ref();
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_over_its_quota_waits_for_the_periods_that_pay_for_it() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut quota = Quota { per_period: ms(20), period: ms(100), ..Default::default() };
        for (at, used, expected) in [
            (0, 10, None),
            // Used 20 of 20 in this period: wait for the next one.
            (30, 10, Some(ms(70))),
            (100, 10, None),
            // Used 50 of 20: it takes two more periods to pay.
            (150, 40, Some(ms(150))),
            // A long pause forgives everything, and leaves nothing over.
            (5000, 10, None),
            (5010, 10, Some(ms(90))),
        ] {
            assert_eq!(quota.spend(start + ms(at), ms(used)), expected, "at {at}");
        }
        assert_eq!(Quota::default().spend(start, ms(1000)), None);
    }
}

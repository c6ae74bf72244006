//! The memory of a container's instances, counted together, and refused beyond its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, Semaphore};
use wasmtime::ResourceLimiter;

/// Bytes that one table element takes in the host.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Most instances, tables and memories of one guest: components of interpreters have some dozens.
const MAX_PARTS: usize = 1000;

/// What all instances of one container use of memory.
#[derive(Debug)]
pub(crate) struct ContainerMemory {
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    /// Of the limit, what instances that live have or may count on: at least what they use.
    promised_bytes: AtomicU64,
    /// What an instance is likely to need, after those that ended; zero before one has.
    likely_bytes: AtomicU64,
    /// Whoever waits for room, one after the other.
    waiting: Semaphore,
    freed: Notify,
}

impl ContainerMemory {
    /// At most `limit_bytes`; zero means without limit.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let memory = Self {
            limit_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            likely_bytes: AtomicU64::new(0),
            waiting: Semaphore::new(1),
            freed: Notify::new(),
        };
        memory.set_limit(limit_bytes);
        memory
    }

    /// Changes the limit: what is used already stays.
    pub(crate) fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(if limit_bytes == 0 { u64::MAX } else { limit_bytes }, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// The limit, if there is one.
    pub(crate) fn limit_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
    }

    /// Bytes in use by instances that live.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The memory of one more instance, once what it is likely to need is free: where requests share a limit, one that
    /// comes too many waits for another's end instead of failing for want of memory.
    pub(crate) async fn room(self: &Arc<Self>) -> InstanceMemory {
        // It is never closed; and if it were, not waiting would be right.
        let _turn = self.waiting.acquire().await;
        loop {
            if let Some(promised_bytes) = self.promise_likely() {
                let mut memory = InstanceMemory::new(self);
                memory.promised_bytes = promised_bytes;
                return memory;
            }
            self.freed.notified().await;
        }
    }

    fn promise_likely(&self) -> Option<u64> {
        let Some(limit) = self.limit_bytes() else { return Some(0) };
        let likely = match self.likely_bytes.load(Ordering::Relaxed) {
            // Nothing is known yet: the first one runs alone, and says what the others may count on.
            0 => limit,
            likely => likely.min(limit),
        };
        self.promise(likely).then_some(likely)
    }

    fn promise(&self, bytes: u64) -> bool {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let grown = |promised: u64| promised.checked_add(bytes).filter(|promised| *promised <= limit);
        self.promised_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn take_back(&self, promised: u64, used: u64) {
        self.promised_bytes.fetch_sub(promised, Ordering::Relaxed);
        self.used_bytes.fetch_sub(used, Ordering::Relaxed);
    }

    /// Up at once, down slowly: one small request among large ones changes little.
    fn learn(&self, used: u64) {
        let next = |likely: u64| Some(if used > likely { used } else { likely - (likely - used) / 16 });
        // It always has a next value.
        let _ = self.likely_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// The memory of one instance. What it used is given back when it is dropped.
pub(crate) struct InstanceMemory {
    container: Arc<ContainerMemory>,
    used_bytes: u64,
    promised_bytes: u64,
    /// What the last growth used and what was promised for it: it may fail in the host.
    last_growth: (u64, u64),
    refused: Arc<AtomicBool>,
}

impl InstanceMemory {
    /// An instance that takes what is there when it needs it.
    pub(crate) fn new(container: &Arc<ContainerMemory>) -> Self {
        Self {
            container: Arc::clone(container),
            used_bytes: 0,
            promised_bytes: 0,
            last_growth: (0, 0),
            refused: Arc::default(),
        }
    }

    /// Becomes true when a growth was refused; outlives the instance.
    pub(crate) fn refused(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refused)
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let used = self.used_bytes.saturating_add(bytes);
        let missing = used.saturating_sub(self.promised_bytes);
        if missing > 0 && !self.container.promise(missing) {
            self.refused.store(true, Ordering::Relaxed);
            return false;
        }
        self.container.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used_bytes = used;
        self.promised_bytes += missing;
        self.last_growth = (bytes, missing);
        true
    }

    fn take_back(&mut self) {
        let (used, promised) = std::mem::take(&mut self.last_growth);
        self.container.take_back(promised, used);
        self.used_bytes -= used;
        self.promised_bytes -= promised;
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        // One that wanted more than there is says nothing of the others.
        if !self.refused.load(Ordering::Relaxed) {
            self.container.learn(self.used_bytes);
        }
        self.container.take_back(self.promised_bytes, self.used_bytes);
        self.container.freed.notify_one();
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow((desired - current.min(desired)) as u64))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow((desired - current.min(desired)) as u64 * TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_container_share_its_limit_and_give_back_what_they_had() {
        let container = Arc::new(ContainerMemory::new(100));
        let mut one = InstanceMemory::new(&container);
        let mut two = InstanceMemory::new(&container);
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(!two.memory_growing(0, 60, None).unwrap());
        assert!(two.refused().load(Ordering::Relaxed));
        assert!(two.memory_growing(0, 40, None).unwrap());
        assert_eq!(container.used_bytes(), 100);
        drop(one);
        assert_eq!(container.used_bytes(), 40);
        assert!(two.memory_growing(40, 100, None).unwrap());
        two.memory_grow_failed(wasmtime::Error::msg("the host has none")).unwrap();
        assert_eq!(container.used_bytes(), 40);
    }

    #[tokio::test]
    async fn who_comes_too_many_waits_until_there_is_room_for_what_others_needed() {
        let container = Arc::new(ContainerMemory::new(100));
        let mut first = container.room().await;
        assert!(first.memory_growing(0, 50, None).unwrap());
        let mut second = Box::pin(container.room());
        assert!(futures::poll!(second.as_mut()).is_pending(), "of the first nothing is known yet");
        drop(first);
        let (one, two) = (second.await, container.room().await);
        let mut third = Box::pin(container.room());
        assert!(futures::poll!(third.as_mut()).is_pending(), "two of 50 are all");
        drop(one);
        let mut third = third.await;
        assert!(third.memory_growing(0, 50, None).unwrap());
        assert!(!third.memory_growing(50, 60, None).unwrap(), "the rest is the second's");
        drop(two);
        assert!(third.memory_growing(50, 100, None).unwrap());
        assert_eq!(container.used_bytes(), 100);
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let container = Arc::new(ContainerMemory::new(0));
        let mut one = container.room().await;
        assert!(one.memory_growing(0, 1 << 40, None).unwrap());
        let _two = container.room().await;
    }
}

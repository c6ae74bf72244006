//! The memory of a container's instances, counted together, and refused beyond its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
}

impl ContainerMemory {
    /// At most `limit_bytes`; zero means without limit.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let memory = Self { limit_bytes: AtomicU64::new(0), used_bytes: AtomicU64::new(0) };
        memory.set_limit(limit_bytes);
        memory
    }

    /// Changes the limit: what is used already stays.
    pub(crate) fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(if limit_bytes == 0 { u64::MAX } else { limit_bytes }, Ordering::Relaxed);
    }

    /// The limit, if there is one.
    pub(crate) fn limit_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
    }

    /// Bytes in use by instances that live.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        self.used_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The memory of one instance. What it used is given back when it is dropped.
pub(crate) struct InstanceMemory {
    container: Arc<ContainerMemory>,
    reserved_bytes: u64,
    last_growth_bytes: u64,
    refused: Arc<AtomicBool>,
}

impl InstanceMemory {
    pub(crate) fn new(container: &Arc<ContainerMemory>) -> Self {
        Self {
            container: Arc::clone(container),
            reserved_bytes: 0,
            last_growth_bytes: 0,
            refused: Arc::default(),
        }
    }

    /// Becomes true when a growth was refused; outlives the instance.
    pub(crate) fn refused(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refused)
    }

    fn grow(&mut self, bytes: u64) -> bool {
        if !self.container.reserve(bytes) {
            self.refused.store(true, Ordering::Relaxed);
            return false;
        }
        self.reserved_bytes += bytes;
        self.last_growth_bytes = bytes;
        true
    }

    fn take_back(&mut self) {
        self.container.release(self.last_growth_bytes);
        self.reserved_bytes -= self.last_growth_bytes;
        self.last_growth_bytes = 0;
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.container.release(self.reserved_bytes);
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
}

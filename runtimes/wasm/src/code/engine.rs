//! The two engines, and the thread that moves their epochs.
//!
//! `pooled` serves HTTP guests: an instance per request from slots that are made once. Its address space is reserved up
//! front, so their number is bounded; memory is used only where a guest touches it. `on_demand` runs command guests, of
//! which there may be thousands for hours, and guests that do not fit a slot. Both are configured alike, so one compiled
//! file serves both.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::CodeError;

/// How long a guest computes before others get their turn. Source: a hundredth of a second is Linux's classic time slice.
pub(crate) const EPOCH: Duration = Duration::from_millis(10);

/// Address space of one linear memory: 4 GiB needs no bounds checks. Source: wasmtime's default on 64 bit.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Core instances, memories and tables there are for each slot: a component is several core instances.
const CORE_INSTANCES_PER_SLOT: u32 = 8;
const TABLES_PER_SLOT: u32 = 8;
const MEMORIES_PER_SLOT: u32 = 2;

/// Elements of the largest table in a slot. Interpreters have some ten thousand functions in theirs.
const TABLE_ELEMENTS: usize = 100_000;

/// Bytes of each memory and table that stay resident in a warm slot, zeroed instead of given back to the kernel.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;

/// Warm slots kept. More than the concurrency that a small node sees; the rest is given back.
const WARM_SLOTS: u32 = 64;

/// Frames of a backtrace in a termination message.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// The engines and their ticker.
pub(crate) struct Engines {
    /// For an instance per request; absent where the address space does not allow it.
    pub(crate) pooled: Option<Engine>,
    /// For everything else.
    pub(crate) on_demand: Engine,
    /// Slots of `pooled`, or how many requests run at once without it.
    pub(crate) slots: u32,
    ticker: Ticker,
}

impl Engines {
    /// Engines with at most `slots` pooled instances, fewer where the kernel grants less.
    pub(crate) fn new(slots: u32) -> Result<Self, CodeError> {
        let on_demand = Engine::new(&config()).map_err(|e| CodeError::Engine(format!("{e:#}")))?;
        let mut granted = slots.max(1);
        let pooled = loop {
            match Engine::new(config().allocation_strategy(pool(granted))) {
                Ok(engine) => break Some(engine),
                Err(error) if granted <= 8 => {
                    tracing::warn!("no pooling allocator, instances are made on demand: {error:#}");
                    break None;
                }
                Err(_) => granted /= 2,
            }
        };
        let ticker = Ticker::start(std::iter::once(on_demand.clone()).chain(pooled.clone()).collect())?;
        Ok(Self { pooled, on_demand, slots: granted, ticker })
    }

    /// What compiled code must agree on to be usable here.
    pub(crate) fn compatibility(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.on_demand.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// Who wants epochs to move while a guest computes.
    pub(crate) fn ticking(&self) -> Ticking {
        Ticking(Arc::clone(&self.ticker.shared))
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES))
        .parallel_compilation(true)
        // A guest's stack within the fiber's, so that an overflow is a trap of the guest and not a fault of the host.
        .max_wasm_stack(1 << 20)
        .async_stack_size(2 << 20);
    config
}

fn pool(slots: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_PER_SLOT)
        .total_memories(slots * MEMORIES_PER_SLOT)
        .total_tables(slots * TABLES_PER_SLOT)
        .total_stacks(slots * 2)
        .max_memory_size(usize::try_from(MEMORY_RESERVATION_BYTES).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS)
        .max_memories_per_module(MEMORIES_PER_SLOT)
        .max_tables_per_module(TABLES_PER_SLOT)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(WARM_SLOTS)
        // With swap it can leak what a former guest wrote, and it is not needed for small guests.
        .pagemap_scan(wasmtime::Enabled::No);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Moves epochs from its own thread: a task would not get its turn while guests hold every worker.
struct Ticker {
    shared: Arc<TickerShared>,
    thread: Option<JoinHandle<()>>,
}

struct TickerShared {
    /// Guests that compute at this moment.
    computing: AtomicUsize,
    stopped: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Ticker {
    fn start(engines: Vec<Engine>) -> Result<Self, CodeError> {
        let shared = Arc::new(TickerShared {
            computing: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
        });
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("epoch-ticker".to_owned())
            .spawn(move || {
                while !seen.stopped.load(Ordering::Acquire) {
                    if seen.computing.load(Ordering::Acquire) == 0 {
                        // Whoever begins to compute unparks; a wake-up between the check and this is kept.
                        std::thread::park();
                        continue;
                    }
                    std::thread::sleep(EPOCH);
                    engines.iter().for_each(Engine::increment_epoch);
                }
            })
            .map_err(|error| CodeError::Engine(error.to_string()))?;
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// A handle to the ticker for those who run guests.
#[derive(Clone)]
pub(crate) struct Ticking(Arc<TickerShared>);

impl Ticking {
    /// Calls `compute` with epochs moving.
    pub(crate) fn during<R>(&self, compute: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a TickerShared);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.computing.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if self.0.computing.fetch_add(1, Ordering::AcqRel) == 0
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
        let _leave = Leave(&self.0);
        compute()
    }
}

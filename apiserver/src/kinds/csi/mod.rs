//! What a cluster knows of its CSI drivers: CSIDriver, CSINode and CSIStorageCapacity.

mod driver;
mod node;
mod storage_capacity;

pub(super) use self::driver::CsiDriverStrategy;
pub(super) use self::node::CsiNodeStrategy;
pub(super) use self::storage_capacity::CsiStorageCapacityStrategy;

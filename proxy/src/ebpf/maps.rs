//! The maps in the kernel.

use std::io;

use aya::maps::{HashMap, Map, MapData, MapError};

use super::{
    layout::{Address, AddressBytes, Member, MemberBytes, Record, RecordBytes, Slot, SlotBytes},
    plan::{Tables, Write},
};

/// The maps that this process writes; programs have two more for themselves. The names are those in `bpf/sockets.bpf.c`.
pub(super) const WRITTEN: [&str; 3] = ["frontends", "slots", "members"];
/// All maps.
pub(super) const ALL: [&str; 6] = ["frontends", "slots", "members", "affinity", "peers", "datagrams"];

/// The maps that this process writes.
pub(super) struct Maps {
    frontends: HashMap<MapData, AddressBytes, RecordBytes>,
    slots: HashMap<MapData, SlotBytes, AddressBytes>,
    members: HashMap<MapData, MemberBytes, u32>,
}

impl Maps {
    /// The maps that `open` finds by name.
    ///
    /// # Errors
    /// One is missing, or has another layout.
    pub(super) fn open(
        mut open: impl FnMut(&'static str) -> Result<Map, MapError>,
    ) -> Result<Self, MapError> {
        let [frontends, slots, members] = WRITTEN;
        Ok(Self {
            frontends: HashMap::try_from(open(frontends)?)?,
            slots: HashMap::try_from(open(slots)?)?,
            members: HashMap::try_from(open(members)?)?,
        })
    }

    /// Everything that they hold. Entries that nobody of ours could have written are removed.
    ///
    /// # Errors
    /// The kernel refuses to read them.
    pub(super) fn read(&mut self) -> io::Result<Tables> {
        let mut tables = Tables::default();
        let mut foreign = Vec::new();
        for entry in self.frontends.iter() {
            let (key, record) = entry.map_err(into_io)?;
            match Address::from_bytes(key) {
                Some(address) => drop(tables.frontends.insert(address, Record::from_bytes(record))),
                None => foreign.push(key),
            }
        }
        for key in foreign {
            self.frontends.remove(&key).map_err(into_io)?;
        }
        for entry in self.slots.iter() {
            let (key, endpoint) = entry.map_err(into_io)?;
            if let Some(endpoint) = Address::from_bytes(endpoint) {
                tables.slots.insert(Slot::from_bytes(key), endpoint);
            }
        }
        for key in self.members.keys() {
            tables.members.extend(Member::from_bytes(key.map_err(into_io)?));
        }
        Ok(tables)
    }

    /// Carry one write out. Deleting what is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses, for want of memory.
    pub(super) fn write(&mut self, write: Write) -> io::Result<()> {
        let done = match write {
            Write::PutFrontend(address, record) => {
                self.frontends.insert(address.to_bytes(), record.to_bytes(), 0)
            }
            Write::DeleteFrontend(address) => self.frontends.remove(&address.to_bytes()),
            Write::PutSlot(slot, endpoint) => self.slots.insert(slot.to_bytes(), endpoint.to_bytes(), 0),
            Write::DeleteSlot(slot) => self.slots.remove(&slot.to_bytes()),
            Write::PutMember(member) => self.members.insert(member.to_bytes(), 1, 0),
            Write::DeleteMember(member) => self.members.remove(&member.to_bytes()),
        };
        match done.map_err(into_io) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn into_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::KeyNotFound => io::ErrorKind::NotFound.into(),
        error => io::Error::other(error),
    }
}

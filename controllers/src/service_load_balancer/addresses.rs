//! Who has which address of the range.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses that are given out, each to one Service, by the Service's UID.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    holders: HashMap<IpAddr, String>,
    held: HashMap<String, IpAddr>,
}

/// Why there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another Service has it, or all are given out.
    Taken,
    /// The one that is asked for is not in the range.
    OutOfRange,
}

impl Addresses {
    /// A Service has had the address since before this process; the first one that says so keeps it.
    pub(super) fn adopt(&mut self, uid: &str, address: IpAddr) {
        if !self.holders.contains_key(&address) && !self.held.contains_key(uid) {
            self.hold(uid, address);
        }
    }

    /// The address of a Service: the one it has if that is still right, the one asked for, or any.
    pub(super) fn take(&mut self, uid: &str, asked: Option<IpAddr>, range: IpNet) -> Result<IpAddr, Refused> {
        if let Some(has) = self.held.get(uid).copied()
            && range.contains(&has)
            && asked.is_none_or(|asked| asked == has)
        {
            return Ok(has);
        }
        let address = match asked {
            Some(asked) if !range.contains(&asked) => return Err(Refused::OutOfRange),
            Some(asked) if self.holders.contains_key(&asked) => return Err(Refused::Taken),
            Some(asked) => asked,
            // `hosts` passes over the network's and the broadcast address.
            None => range.hosts().find(|ip| !self.holders.contains_key(ip)).ok_or(Refused::Taken)?,
        };
        self.release(uid);
        self.hold(uid, address);
        Ok(address)
    }

    /// The Service has no address any more.
    pub(super) fn release(&mut self, uid: &str) {
        if let Some(address) = self.held.remove(uid) {
            self.holders.remove(&address);
        }
    }

    fn hold(&mut self, uid: &str, address: IpAddr) {
        self.holders.insert(address, uid.to_owned());
        self.held.insert(uid.to_owned(), address);
    }
}

//! Speaking to nf_tables.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::AsRawFd as _,
    time::Duration,
};

use netlink_bindings::nftables::{Nfgenmsg, Request, SetelemListElemAttrs};
use netlink_socket2::NetlinkSocket;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use super::batch::{Batch, TABLE, family_number};
use crate::rules::Family;

/// A batch is one datagram; that of 10,000 Services has about 15 MB.
const SEND_BUFFER_BYTES: usize = 512 << 20;

/// Answers: one, or one per message that was refused, each with up to 64 KiB of what was sent.
const ANSWER_BYTES: usize = 1 << 20;

/// The kernel answers before `send` returns; this is for a kernel that does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const NLMSG_ERROR: u16 = 2;

/// What was changed by whom meanwhile.
#[derive(Debug)]
pub(super) enum Refused {
    /// The machine's rules are of another generation than the batch says.
    Outdated,
    /// A message was refused: which, and why.
    Message { step: String, source: io::Error },
    /// The kernel cannot be spoken to.
    Socket(io::Error),
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Outdated => Self::other("the rules of this machine change all the time"),
            Refused::Message { step, source } => Self::new(source.kind(), format!("{step}: {source}")),
            Refused::Socket(source) => source,
        }
    }
}

/// Carry out a batch: all of it, or nothing.
pub(super) fn commit(batch: Batch) -> Result<(), Refused> {
    if batch.is_empty() {
        return Ok(());
    }
    let (bytes, acknowledged, steps) = batch.finish();
    let answer = exchange(&bytes).map_err(|errno| Refused::Socket(errno.into()))?;
    let mut rest = answer.as_slice();
    let mut is_done = false;
    while let Some((header, code)) = rest.get(..16).zip(rest.get(16..20)) {
        let word = |range: std::ops::Range<usize>| header.get(range).and_then(|bytes| bytes.try_into().ok());
        let length = word(0..4).map_or(0, u32::from_ne_bytes);
        let kind = header.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
        let sequence = word(8..12).map_or(0, u32::from_ne_bytes);
        let code = code.try_into().map_or(0, i32::from_ne_bytes);
        if kind == NLMSG_ERROR && code != 0 {
            let errno = Errno::from_raw(-code);
            if errno == Errno::ERESTART {
                return Err(Refused::Outdated);
            }
            let index = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
            let step = index.and_then(|index| steps.get(index)).cloned().unwrap_or_default();
            return Err(Refused::Message { step, source: errno.into() });
        }
        is_done |= kind == NLMSG_ERROR && sequence == acknowledged;
        let next = usize::try_from(length).unwrap_or(usize::MAX).max(16).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    if is_done { Ok(()) } else { Err(Refused::Socket(io::Error::other("no answer"))) }
}

fn exchange(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES)?;
    setsockopt(&fd, sockopt::RcvBufForce, &ANSWER_BYTES)?;
    let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(1);
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
    send(fd.as_raw_fd(), bytes, MsgFlags::empty())?;
    // Each answer is a datagram: the first error is the one that counts.
    let mut answer = vec![0; ANSWER_BYTES];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// The generation of the machine's rules: another after every change, whoever makes it.
pub(super) fn generation() -> io::Result<u32> {
    let mut socket = NetlinkSocket::new();
    let request = Request::new().op_getgen_do(&Nfgenmsg::new());
    let mut reply = socket.request(&request)?;
    let (_, attributes) = reply.recv_one()?;
    Ok(attributes.get_id()?)
}

/// The generation that follows on a change.
pub(super) fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// The keys of a set or map.
pub(super) fn keys(family: Family, set: &str) -> io::Result<HashSet<Vec<u8>>> {
    let mut socket = NetlinkSocket::new();
    let mut request = Request::new().op_getsetelem_dump(&header(family));
    request.encode().push_table_bytes(TABLE.as_bytes()).push_set_bytes(set.as_bytes());
    let mut reply = socket.request(&request)?;
    let mut keys = HashSet::new();
    while let Some((_, list)) = reply.recv().transpose()? {
        for element in list.get_elements()? {
            let SetelemListElemAttrs::Elem(element) = element?;
            keys.insert(element.get_key()?.get_value()?.to_vec());
        }
    }
    Ok(keys)
}

/// The chains of the table, and how many rules each has; empty if there is no table.
pub(super) fn chains(family: Family) -> io::Result<BTreeMap<String, usize>> {
    let mut chains = BTreeMap::new();
    let mut socket = NetlinkSocket::new();
    let request = Request::new().op_getchain_dump(&header(family));
    let mut reply = socket.request(&request)?;
    while let Some((_, chain)) = reply.recv().transpose()? {
        if chain.get_table()?.to_bytes() == TABLE.as_bytes() {
            chains.insert(chain.get_name()?.to_string_lossy().into_owned(), 0);
        }
    }
    drop(reply);
    let mut request = Request::new().op_getrule_dump(&header(family));
    request.encode().push_table_bytes(TABLE.as_bytes());
    let mut reply = socket.request(&request)?;
    while let Some(rule) = reply.recv() {
        let (_, rule) = match rule {
            Ok(rule) => rule,
            Err(error) if error.as_io_error().kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error.into()),
        };
        if rule.get_table()?.to_bytes() == TABLE.as_bytes() {
            *chains.entry(rule.get_chain()?.to_string_lossy().into_owned()).or_default() += 1;
        }
    }
    Ok(chains)
}

fn header(family: Family) -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = family_number(family);
    header
}

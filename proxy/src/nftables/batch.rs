//! A transaction of nf_tables: messages that the kernel takes all together or not at all.
//!
//! Source: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. Attributes are written with `netlink-bindings`; its typed
//! writers lack the expressions `dynset` and `masq`, so all are written alike, by number.

use netlink_bindings::utils::{align, finalize_nested_header, push_header, push_nested_header};

use super::expressions::Expressions;
use crate::rules::Family;

/// The table's name, in both families.
pub(super) const TABLE: &str = "wherry";

const SUBSYSTEM: u16 = 10 << 8;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;

/// Elements in one message: an attribute's length is 16 bits, and an element takes less than 500 bytes.
const ELEMENTS_PER_MESSAGE: usize = 100;

/// `enum nf_tables_msg_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    DelRule = 8,
    NewSet = 9,
    DelSet = 11,
    NewElements = 12,
    DelElements = 14,
}

/// The netlink number of a family.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    /// `enum nf_inet_hooks`.
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    Drop,
    Goto(String),
}

impl Verdict {
    pub(super) fn goto(chain: &str) -> Self {
        Self::Goto(chain.to_owned())
    }
}

/// `enum nft_set_flags`.
pub(super) mod set_flags {
    pub(in super::super) const ANONYMOUS: u32 = 1;
    pub(in super::super) const CONSTANT: u32 = 2;
    pub(in super::super) const MAP: u32 = 8;
    pub(in super::super) const TIMEOUT: u32 = 0x10;
    pub(in super::super) const EVAL: u32 = 0x20;
}

/// `NFT_DATA_VERDICT`.
pub(super) const VERDICT_TYPE: u32 = 0xffff_ff00;

/// A set or map. Types are those of the program `nft`, which alone looks at them.
#[derive(Debug, Clone)]
pub(super) struct Set<'a> {
    pub(super) name: &'a str,
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_bytes: usize,
    /// Type and length; the length of a verdict is not given.
    pub(super) data: Option<(u32, usize)>,
    pub(super) timeout_ms: Option<u64>,
    /// How many elements fit; `None` leaves it open.
    pub(super) size: Option<u32>,
}

/// The value of an element of a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// A set has none.
    None,
    Verdict(Verdict),
    Data(Vec<u8>),
}

/// One element.
#[derive(Debug, Clone)]
pub(super) struct Element<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a Value,
}

/// Messages, and what each is for.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// By sequence number, less one.
    steps: Vec<String>,
    /// Where the last message begins.
    last: usize,
    next_set_id: u32,
}

impl Batch {
    /// An empty one that holds only if the rules of the machine are still of this generation.
    pub(super) fn new(generation: u32) -> Self {
        let mut batch = Self { bytes: Vec::new(), steps: Vec::new(), last: 0, next_set_id: 1 };
        let start = batch.begin(BATCH_BEGIN, 0, 0, 10, "begin".to_owned());
        batch.be32(BATCH_GENERATION, generation);
        batch.end(start);
        batch
    }

    /// Whether nothing was put in.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.len() == 1
    }

    /// The bytes to send, the sequence number of the message that is acknowledged, and each message in words.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32, Vec<String>) {
        let acknowledged = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        // Only the last is acknowledged: ten thousand answers would not fit into the socket.
        let flags = self.last + 6;
        let old = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]);
        self.bytes[flags..flags + 2].copy_from_slice(&(old | NLM_F_ACK).to_ne_bytes());
        let start = self.begin(BATCH_END, 0, 0, 10, "end".to_owned());
        self.end(start);
        (self.bytes, acknowledged, self.steps)
    }

    pub(super) fn add_table(&mut self, family: Family) {
        let start = self.message(Kind::NewTable, NLM_F_CREATE, family, "add the table".to_owned());
        self.text(1, TABLE);
        self.end(start);
    }

    pub(super) fn delete_table(&mut self, family: Family) {
        let start = self.message(Kind::DelTable, 0, family, "delete the table".to_owned());
        self.text(1, TABLE);
        self.end(start);
    }

    /// A table that exists only within this transaction.
    pub(super) fn add_scratch_table(&mut self) {
        for (kind, flags) in [(Kind::NewTable, NLM_F_CREATE), (Kind::DelTable, 0)] {
            let start = self.message(kind, flags, Family::V4, "probe".to_owned());
            self.text(1, "wherry_probe");
            self.end(start);
        }
    }

    pub(super) fn add_chain(&mut self, family: Family, name: &str, hook: Option<Hook>) {
        let start = self.message(Kind::NewChain, NLM_F_CREATE, family, format!("add chain {name}"));
        self.text(1, TABLE);
        self.text(3, name);
        if let Some(hook) = hook {
            let nest = push_nested_header(&mut self.bytes, 4);
            self.be32(1, hook.number);
            self.be32(2, hook.priority.cast_unsigned());
            finalize_nested_header(&mut self.bytes, nest);
            self.text(7, hook.kind);
        }
        self.end(start);
    }

    pub(super) fn delete_chain(&mut self, family: Family, name: &str) {
        let start = self.message(Kind::DelChain, 0, family, format!("delete chain {name}"));
        self.text(1, TABLE);
        self.text(3, name);
        self.end(start);
    }

    /// Delete all rules of a chain.
    pub(super) fn flush_chain(&mut self, family: Family, name: &str) {
        let start = self.message(Kind::DelRule, 0, family, format!("flush chain {name}"));
        self.text(1, TABLE);
        self.text(2, name);
        self.end(start);
    }

    pub(super) fn add_rule(&mut self, family: Family, chain: &str, expressions: &Expressions) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        let start = self.message(Kind::NewRule, flags, family, format!("add a rule to chain {chain}"));
        self.text(1, TABLE);
        self.text(2, chain);
        let nest = push_nested_header(&mut self.bytes, 4);
        self.bytes.extend_from_slice(expressions.as_bytes());
        finalize_nested_header(&mut self.bytes, nest);
        self.end(start);
    }

    /// Returns the id by which rules of this batch may name it.
    pub(super) fn add_set(&mut self, family: Family, set: &Set<'_>) -> u32 {
        let id = self.next_set_id;
        self.next_set_id += 1;
        let start = self.message(Kind::NewSet, NLM_F_CREATE, family, format!("add set {}", set.name));
        self.text(1, TABLE);
        self.text(2, set.name);
        self.be32(3, set.flags);
        self.be32(4, set.key_type);
        self.be32(5, length(set.key_bytes));
        if let Some((kind, bytes)) = set.data {
            self.be32(6, kind);
            if kind != VERDICT_TYPE {
                self.be32(7, length(bytes));
            }
        }
        if let Some(size) = set.size {
            let nest = push_nested_header(&mut self.bytes, 9);
            self.be32(1, size);
            finalize_nested_header(&mut self.bytes, nest);
        }
        self.be32(10, id);
        if let Some(timeout_ms) = set.timeout_ms {
            self.raw(11, &timeout_ms.to_be_bytes());
        }
        self.end(start);
        id
    }

    pub(super) fn delete_set(&mut self, family: Family, name: &str) {
        let start = self.message(Kind::DelSet, 0, family, format!("delete set {name}"));
        self.text(1, TABLE);
        self.text(2, name);
        self.end(start);
    }

    /// `set_id` is for a set of this batch whose name the kernel makes.
    pub(super) fn add_elements(
        &mut self,
        family: Family,
        set: &str,
        set_id: Option<u32>,
        elements: &[Element<'_>],
    ) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.elements(Kind::NewElements, NLM_F_CREATE, family, set, set_id, some);
        }
    }

    pub(super) fn delete_elements(&mut self, family: Family, set: &str, elements: &[Element<'_>]) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.elements(Kind::DelElements, 0, family, set, None, some);
        }
    }

    fn elements(
        &mut self,
        kind: Kind,
        flags: u16,
        family: Family,
        set: &str,
        set_id: Option<u32>,
        elements: &[Element<'_>],
    ) {
        let start = self.message(kind, flags, family, format!("{kind:?} of set {set}"));
        self.text(1, TABLE);
        self.text(2, set);
        if let Some(id) = set_id {
            self.be32(4, id);
        }
        let list = push_nested_header(&mut self.bytes, 3);
        for element in elements {
            let nest = push_nested_header(&mut self.bytes, 1);
            push_data(&mut self.bytes, 1, element.key);
            match element.value {
                Value::None => {}
                Value::Verdict(verdict) => push_verdict(&mut self.bytes, 2, verdict),
                Value::Data(data) => push_data(&mut self.bytes, 2, data),
            }
            finalize_nested_header(&mut self.bytes, nest);
        }
        finalize_nested_header(&mut self.bytes, list);
        self.end(start);
    }

    fn message(&mut self, kind: Kind, flags: u16, family: Family, step: String) -> usize {
        self.begin(SUBSYSTEM | kind as u16, flags, family_number(family), 0, step)
    }

    /// `struct nlmsghdr` and `struct nfgenmsg`.
    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16, step: String) -> usize {
        align(&mut self.bytes);
        let start = self.bytes.len();
        self.steps.push(step);
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.last = start;
        start
    }

    fn end(&mut self, start: usize) {
        align(&mut self.bytes);
        let bytes = length(self.bytes.len() - start);
        self.bytes[start..start + 4].copy_from_slice(&bytes.to_ne_bytes());
    }

    fn text(&mut self, attribute: u16, text: &str) {
        push_text(&mut self.bytes, attribute, text);
    }

    fn be32(&mut self, attribute: u16, value: u32) {
        push_be32(&mut self.bytes, attribute, value);
    }

    fn raw(&mut self, attribute: u16, value: &[u8]) {
        push_raw(&mut self.bytes, attribute, value);
    }
}

/// A length that is far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(super) fn push_raw(bytes: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    push_header(bytes, attribute, u16::try_from(value.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(value);
    align(bytes);
}

pub(super) fn push_be32(bytes: &mut Vec<u8>, attribute: u16, value: u32) {
    push_raw(bytes, attribute, &value.to_be_bytes());
}

pub(super) fn push_text(bytes: &mut Vec<u8>, attribute: u16, text: &str) {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    push_raw(bytes, attribute, &value);
}

/// `NFTA_DATA_VALUE` within `attribute`.
pub(super) fn push_data(bytes: &mut Vec<u8>, attribute: u16, data: &[u8]) {
    let nest = push_nested_header(bytes, attribute);
    push_raw(bytes, 1, data);
    finalize_nested_header(bytes, nest);
}

/// `NFTA_DATA_VERDICT` within `attribute`.
pub(super) fn push_verdict(bytes: &mut Vec<u8>, attribute: u16, verdict: &Verdict) {
    let nest = push_nested_header(bytes, attribute);
    let inner = push_nested_header(bytes, 2);
    match verdict {
        Verdict::Drop => push_be32(bytes, 1, 0),
        Verdict::Goto(chain) => {
            push_be32(bytes, 1, (-4_i32).cast_unsigned());
            push_text(bytes, 2, chain);
        }
    }
    finalize_nested_header(bytes, inner);
    finalize_nested_header(bytes, nest);
}

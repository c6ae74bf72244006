//! Running guests: what they are granted, what they use, how they end.

mod arguments;
mod closing;
mod command;
mod context;
mod ending;
mod http;
mod log_file;
mod memory;
mod meter;
mod mounts;
mod network;
mod outbound;
mod send;
mod stdio;
mod terminal;

pub(crate) use arguments::{Arguments, arguments};
pub(crate) use command::run_command;
pub(crate) use context::{ComponentGuest, Grants, ModuleGuest, Sockets};
pub(crate) use ending::{Ending, KILLED};
pub(crate) use http::{HttpServer, ServerLimits};
pub(crate) use log_file::LogFile;
pub(crate) use memory::ContainerMemory;
pub(crate) use meter::{Cpu, Meter};
pub(crate) use mounts::{GuestMount, Mounts};
pub(crate) use network::{PodNetwork, add_to_linker};
pub(crate) use stdio::{Outputs, Pipe, Stdio};
pub(crate) use terminal::{Terminal, Typed, shown};

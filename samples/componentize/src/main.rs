//! `componentize IN.wasm OUT.wasm`: wraps a core module built for `wasm32-wasip1` (as a reactor) as a component.
//!
//! Where rustup can be used, `rustup target add wasm32-wasip2` makes this step unnecessary. Debian's Rust has no such
//! target, but it can build the standard library for `wasm32-wasip1`, and this does the rest.

use std::path::PathBuf;

use anyhow::Context as _;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: componentize IN.wasm OUT.wasm");
    };
    let module = std::fs::read(&input).with_context(|| format!("cannot read {}", input.display()))?;
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()
        .with_context(|| format!("{} cannot be made a component", input.display()))?;
    std::fs::write(&output, component).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(())
}

//! A guest, linked and ready to be instantiated any number of times.

use std::path::Path;

use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::{CodeError, Engines};
use crate::guest::{ComponentGuest, ModuleGuest};

/// What kind of guest an image holds, with its imports resolved.
pub(crate) enum Program {
    /// A core module with `_start` (WASI preview 1).
    Module(wasmtime::InstancePre<ModuleGuest>),
    /// A component with `wasi:cli/run`.
    Command(CommandPre<ComponentGuest>),
    /// A component with `wasi:http/incoming-handler`.
    Http(ProxyPre<ComponentGuest>),
}

/// The interface that makes a component a server. Any 0.2 version fits.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";

/// The interface that makes a component a command.
const RUN: &str = "wasi:cli/run@0.2.";

/// The imports of every guest, resolved once per engine.
pub(crate) struct Linkers {
    modules: Linker<ModuleGuest>,
    commands: ComponentLinker<ComponentGuest>,
    pooled: Option<ComponentLinker<ComponentGuest>>,
}

impl Linkers {
    pub(crate) fn new(engines: &Engines) -> Result<Self, CodeError> {
        let failed = |error: wasmtime::Error| CodeError::Engine(format!("{error:#}"));
        let mut modules = Linker::new(&engines.on_demand);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, |guest: &mut ModuleGuest| &mut guest.wasi)
            .map_err(failed)?;
        // WASI's own takes codes below 126 only; a program's 137 is as good a code as any.
        modules.allow_shadowing(true);
        let exit = |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) };
        modules.func_wrap("wasi_snapshot_preview1", "proc_exit", exit).map_err(failed)?;
        Ok(Self {
            modules,
            commands: components(&engines.on_demand).map_err(failed)?,
            pooled: engines.pooled.as_ref().map(components).transpose().map_err(failed)?,
        })
    }
}

fn components(engine: &Engine) -> wasmtime::Result<ComponentLinker<ComponentGuest>> {
    let mut linker = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    crate::guest::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Compiles WebAssembly of either kind; blocking, and long for large guests.
pub(crate) fn compile(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, CodeError> {
    let compiled =
        if is_component(wasm) { engine.precompile_component(wasm) } else { engine.precompile_module(wasm) };
    compiled.map_err(|error| CodeError::Compile(format!("{error:#}")))
}

/// Components and modules differ in the layer, the two bytes after the version.
fn is_component(wasm: &[u8]) -> bool {
    wasm.get(6..8) == Some(&[1, 0])
}

impl Program {
    /// Maps compiled code and resolves its imports.
    ///
    /// *Assumption*: the file was written by [`compile`] of this very engine configuration, and nobody else can write
    /// it: the caller has checked owner, mode and checksum.
    pub(crate) fn map(engines: &Engines, linkers: &Linkers, file: &Path) -> Result<Self, CodeError> {
        let broken = |error: wasmtime::Error| CodeError::Cache {
            action: "map",
            path: file.display().to_string(),
            why: format!("{error:#}"),
        };
        match Engine::detect_precompiled_file(file).map_err(broken)? {
            Some(wasmtime::Precompiled::Module) => {
                let module = map_module(&engines.on_demand, file).map_err(broken)?;
                link_module(linkers, &module)
            }
            Some(wasmtime::Precompiled::Component) => {
                let component = map_component(&engines.on_demand, file).map_err(broken)?;
                link_component(engines, linkers, &component, file)
            }
            None => Err(broken(wasmtime::Error::msg("it is not compiled code"))),
        }
    }
}

fn link_module(linkers: &Linkers, module: &Module) -> Result<Program, CodeError> {
    if module.get_export("_start").is_none() {
        let names: Vec<&str> = module.exports().map(|export| export.name()).take(20).collect();
        return Err(CodeError::NothingToRun(format!("it is a module that exports {}", names.join(", "))));
    }
    let linked = linkers.modules.instantiate_pre(module);
    linked.map(Program::Module).map_err(|error| CodeError::Link(format!("{error:#}")))
}

fn link_component(
    engines: &Engines,
    linkers: &Linkers,
    component: &Component,
    file: &Path,
) -> Result<Program, CodeError> {
    let unlinked = |error: wasmtime::Error| CodeError::Link(format!("{error:#}"));
    let exports: Vec<String> =
        component.component_type().exports(&engines.on_demand).map(|(name, _)| name.to_owned()).collect();
    let exports_one = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
    if exports_one(HANDLER) {
        // A guest that fits no slot is refused by the pool when it is mapped, and served on demand instead.
        let pooled = engines.pooled.as_ref().zip(linkers.pooled.as_ref()).and_then(|(engine, linker)| {
            map_component(engine, file)
                .inspect_err(|error| tracing::info!("guest does not fit a pooled slot: {error:#}"))
                .ok()
                .map(|component| (linker, component))
        });
        let linked = match &pooled {
            Some((linker, component)) => linker.instantiate_pre(component),
            None => linkers.commands.instantiate_pre(component),
        };
        return linked.and_then(ProxyPre::new).map(Program::Http).map_err(unlinked);
    }
    if exports_one(RUN) {
        let linked = linkers.commands.instantiate_pre(component);
        return linked.and_then(CommandPre::new).map(Program::Command).map_err(unlinked);
    }
    let some: Vec<&str> = exports.iter().take(20).map(String::as_str).collect();
    Err(CodeError::NothingToRun(format!("it is a component that exports {}", some.join(", "))))
}

#[allow(unsafe_code, reason = "precompiled code is mapped from our own cache, which nobody else can write")]
fn map_module(engine: &Engine, file: &Path) -> wasmtime::Result<Module> {
    // SAFETY: the cache checks that the file is ours alone (owner, mode, checksum) before it calls `Program::map`, and
    // writes it only with the output of `compile` under the key of this engine's compatibility hash.
    unsafe { Module::deserialize_file(engine, file) }
}

#[allow(unsafe_code, reason = "precompiled code is mapped from our own cache, which nobody else can write")]
fn map_component(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: as for `map_module`.
    unsafe { Component::deserialize_file(engine, file) }
}

impl Program {
    /// A store's epochs: yield to others at every tick, so that no guest can keep a worker to itself.
    pub(crate) fn be_fair<T>(store: &mut Store<T>) {
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
    }
}

//! Running a command guest to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::InstanceMemory;
use super::{Ending, Grants, Sockets};
use crate::code::Program;

/// Instantiates a module or command component and runs its main function.
///
/// *Cancellation*: dropping the future ends the guest at its next epoch or host call, and frees all it had.
pub(crate) async fn run_command(program: Arc<Program>, grants: Grants) -> Ending {
    let limit = grants.memory.limit_bytes();
    let (result, refused) = match program.as_ref() {
        Program::Module(module) => {
            let mut prepared = match grants.module_store(module.module().engine()) {
                Ok(prepared) => prepared,
                Err(error) => return Ending::trapped(&format!("cannot start: {error:#}")),
            };
            let run = async {
                let instance = module.instantiate_async(&mut prepared.store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut prepared.store, "_start")?;
                start.call_async(&mut prepared.store, ()).await.map(Ok)
            };
            (run.await, prepared.refused.load(Ordering::Relaxed))
        }
        Program::Command(command) => {
            let memory = InstanceMemory::new(&grants.memory);
            let mut prepared = match grants.component_store(command.engine(), Sockets::AsGranted, memory) {
                Ok(prepared) => prepared,
                Err(error) => return Ending::trapped(&format!("cannot start: {error:#}")),
            };
            let run = async {
                let instance = command.instantiate_async(&mut prepared.store).await?;
                instance.wasi_cli_run().call_run(&mut prepared.store).await
            };
            (run.await, prepared.refused.load(Ordering::Relaxed))
        }
        Program::Http(_) => return Ending::trapped("an HTTP guest is served, not run"),
    };
    Ending::of(result, refused, limit)
}

//! `wasi:sockets/ip-name-lookup`: names as the pod resolves them.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::LookupError;
use crate::guest::ComponentGuest;

/// The interface, in the version of WASI's own implementation, which this one replaces. The linker finds it for guests of
/// every 0.2.
const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// The longest name, bytes. Source: RFC 1035, 2.3.4, with room for a name that is not in ASCII yet.
const MAX_NAME_BYTES: usize = 1024;

/// A lookup under way, and its addresses one by one.
struct NameLookup {
    task: Option<AbortOnDropHandle<Result<Vec<IpAddr>, LookupError>>>,
    outcome: Result<std::vec::IntoIter<IpAddr>, ErrorCode>,
}

#[async_trait]
impl Pollable for NameLookup {
    async fn ready(&mut self) {
        let Some(task) = &mut self.task else { return };
        self.outcome = match task.await {
            Ok(Ok(addresses)) => Ok(addresses.into_iter()),
            Ok(Err(error)) => Err(error_code(error)),
            // The host is at fault, or on its way out.
            Err(_) => Err(ErrorCode::TemporaryResolverFailure),
        };
        self.task = None;
    }
}

fn error_code(error: LookupError) -> ErrorCode {
    match error {
        LookupError::Invalid => ErrorCode::InvalidArgument,
        LookupError::NotGranted => ErrorCode::AccessDenied,
        LookupError::NotFound => ErrorCode::NameUnresolvable,
        LookupError::Unavailable => ErrorCode::TemporaryResolverFailure,
    }
}

type Store<'a> = StoreContextMut<'a, ComponentGuest>;
type Outcome<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

pub(super) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("resolve-address-stream", ResourceType::host::<NameLookup>(), |mut store, rep| {
        store.data_mut().pod_sockets().inner.table.delete(Resource::<NameLookup>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap("resolve-addresses", resolve_addresses)?;
    interface.func_wrap("[method]resolve-address-stream.resolve-next-address", resolve_next_address)?;
    interface.func_wrap("[method]resolve-address-stream.subscribe", subscribe_to_lookup)
}

fn resolve_addresses(
    mut store: Store<'_>,
    (network, name): (Resource<Network>, String),
) -> Outcome<Resource<NameLookup>> {
    let log = store.data_mut().log();
    let sockets = store.data_mut().pod_sockets();
    // The resource itself is the right to use the network.
    sockets.inner.table.get(&network)?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Ok((Err(ErrorCode::InvalidArgument),));
    }
    let pod = Arc::clone(sockets.network);
    let task = tokio::spawn(async move {
        let found = pod.resolve(&name).await;
        if found == Err(LookupError::NotGranted) {
            log.line(&format!(
                "lookup of {name:?} refused: the name is not granted to this pod (grant it with the pod annotation {})",
                super::ALLOWED_HOSTS
            ));
        }
        found.map(|found| found.addresses)
    });
    let lookup = NameLookup { task: Some(AbortOnDropHandle::new(task)), outcome: Err(ErrorCode::WouldBlock) };
    Ok((Ok(sockets.inner.table.push(lookup)?),))
}

fn resolve_next_address(
    mut store: Store<'_>,
    (this,): (Resource<NameLookup>,),
) -> Outcome<Option<IpAddress>> {
    let lookup = store.data_mut().pod_sockets().inner.table.get_mut(&this)?;
    if lookup.task.as_ref().is_some_and(|task| !task.is_finished()) {
        return Ok((Err(ErrorCode::WouldBlock),));
    }
    // A task that has finished gives its outcome at once.
    let _ = futures::FutureExt::now_or_never(lookup.ready());
    Ok((match &mut lookup.outcome {
        Ok(addresses) => Ok(addresses.next().map(IpAddress::from)),
        Err(code) => Err(*code),
    },))
}

fn subscribe_to_lookup(
    mut store: Store<'_>,
    (this,): (Resource<NameLookup>,),
) -> wasmtime::Result<(Resource<DynPollable>,)> {
    Ok((subscribe(store.data_mut().pod_sockets().inner.table, this)?,))
}

//! Changes that are neither a client's update nor a deletion: the assignment of a pod to a node.

use wherry_machinery::status::Status;
use wherry_storage::{Change, Expected, Outcome};

use super::context::Context;
use super::update::Transform;
use super::{Kind, Refusal, Registry, store_failed};

/// How often an assignment that met another write is tried again.
const MAX_TRIES: usize = 16;

impl Registry {
    /// Stores what `transform` makes of the object, past strategy and validation: for acts that the server itself defines.
    ///
    /// # Errors
    /// Not found, or what `transform` refuses.
    pub(crate) async fn assign(
        &self,
        kind: &Kind,
        context: &Context,
        namespace: &str,
        name: &str,
        transform: Transform<'_>,
    ) -> Result<(), Refusal> {
        let key = kind.key(namespace, name)?;
        let mut current = self.store.get(&key).await.map_err(store_failed)?;
        for _ in 0..MAX_TRIES {
            let stored = current.ok_or_else(|| kind.not_found(name))?;
            let new = transform(&kind.decode(&stored.value, stored.mod_revision)?)?;
            if context.dry_run {
                return Ok(());
            }
            let change = Change::Put(kind.encode(&new));
            let expected = Expected::At(stored.mod_revision);
            match self.store.transact(&key, expected, change).await.map_err(store_failed)? {
                Outcome::Committed { .. } => return Ok(()),
                Outcome::Conflict { current: now } => current = now,
            }
        }
        Err(Status::modified(kind.resource.group, kind.resource.name, name).into())
    }
}

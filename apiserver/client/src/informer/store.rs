//! What an informer knows: objects by namespace and name, and by the values of indexes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::Resource;

/// The objects that an informer knows. Clones share them.
pub struct Store<K> {
    inner: Arc<RwLock<Inner<K>>>,
}

struct Inner<K> {
    namespaces: HashMap<Box<str>, HashMap<Box<str>, Arc<K>>>,
    indexes: HashMap<&'static str, Index<K>>,
}

/// The values under which an index files an object.
pub(super) type Values<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// An object as it was, if it was there, and as it is, if it still is.
pub(super) type Replaced<K> = (Option<Arc<K>>, Option<Arc<K>>);

struct Index<K> {
    values: Values<K>,
    /// Few objects share a value, mostly; a list is the smallest set of them.
    objects: HashMap<String, Vec<Arc<K>>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let inner = Inner { namespaces: HashMap::new(), indexes: HashMap::new() };
        Self { inner: Arc::new(RwLock::new(inner)) }
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("objects", &self.len()).finish_non_exhaustive()
    }
}

impl<K> Store<K> {
    /// The object of this name; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().namespaces.get(namespace)?.get(name).cloned()
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().namespaces.values().flat_map(HashMap::values).cloned().collect()
    }

    /// All objects of one namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read().namespaces.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// The objects that the index `index` files under `value`; none if there is no such index.
    pub fn indexed(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner.indexes.get(index).and_then(|index| index.objects.get(value)).cloned().unwrap_or_default()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().namespaces.values().map(HashMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> Store<K> {
    pub(super) fn add_index(&self, name: &'static str, values: Values<K>) {
        let mut inner = self.write();
        if inner.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, objects: HashMap::new() };
        for object in inner.namespaces.values().flat_map(HashMap::values) {
            index.insert(object);
        }
        inner.indexes.insert(name, index);
    }

    /// Puts `object` in and returns what it replaces.
    pub(super) fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        self.write().insert(object)
    }

    /// Takes the object of the same name out.
    pub(super) fn remove(&self, object: &K) -> Option<Arc<K>> {
        self.write().remove(object)
    }

    /// Makes `objects` the whole content; returns each object as it was and as it is.
    pub(super) fn replace(&self, objects: Vec<Arc<K>>) -> Vec<Replaced<K>> {
        let mut inner = self.write();
        let before = std::mem::take(&mut inner.namespaces);
        inner.indexes.values_mut().for_each(|index| index.objects = HashMap::new());
        let mut changes = Vec::new();
        for object in objects {
            let old =
                before.get(namespace(&*object)).and_then(|objects| objects.get(name(&*object))).cloned();
            inner.insert(object.clone());
            changes.push((old, Some(object)));
        }
        for old in before.values().flat_map(HashMap::values) {
            let still_there = inner
                .namespaces
                .get(namespace(&**old))
                .is_some_and(|objects| objects.contains_key(name(&**old)));
            if !still_there {
                changes.push((Some(old.clone()), None));
            }
        }
        changes
    }
}

impl<K: Resource> Inner<K> {
    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let old = match self.namespaces.get_mut(namespace(&*object)) {
            Some(objects) => objects.insert(name(&*object).into(), object.clone()),
            None => {
                let objects = HashMap::from([(name(&*object).into(), object.clone())]);
                self.namespaces.insert(namespace(&*object).into(), objects);
                None
            }
        };
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        old
    }

    fn remove(&mut self, object: &K) -> Option<Arc<K>> {
        let objects = self.namespaces.get_mut(namespace(object))?;
        let old = objects.remove(name(object))?;
        if objects.is_empty() {
            self.namespaces.remove(namespace(object));
        }
        self.indexes.values_mut().for_each(|index| index.remove(&old));
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, object: &Arc<K>) {
        for value in (self.values)(object) {
            self.objects.entry(value).or_default().push(object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<K>) {
        for value in (self.values)(object) {
            if let Some(objects) = self.objects.get_mut(&value) {
                objects.retain(|other| !Arc::ptr_eq(other, object));
                if objects.is_empty() {
                    self.objects.remove(&value);
                }
            }
        }
    }
}

fn namespace<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

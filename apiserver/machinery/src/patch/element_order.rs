//! The order of merged lists: the patch's order, woven into the order that was.
//!
//! Precedence: `$setElementOrder`, then the patch's list, then the list as it was.

use serde_json::Value;

/// Whether two elements are the same one: by the merge key, or as scalars.
fn is_same(a: &Value, b: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        Some(key) => matches!((a.get(key), b.get(key)), (Some(a), Some(b)) if a == b),
        None => a == b,
    }
}

fn position(list: &[Value], element: &Value, merge_key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| is_same(other, element, merge_key))
}

/// The elements that `by` has, and those it has not.
fn partition(list: Vec<Value>, by: &[Value], merge_key: Option<&str>) -> (Vec<Value>, Vec<Value>) {
    list.into_iter().partition(|element| position(by, element, merge_key).is_some())
}

/// Put `merged` in order: what `patch_order` has in its order, the rest in the order of `server_order`; where the two meet,
/// by `server_order` if it has both, else the patch's element first.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let (mut patched, mut others) = partition(merged, patch_order, merge_key);
    let place = |order: &[Value], element: &Value| position(order, element, merge_key).unwrap_or(usize::MAX);
    patched.sort_by_cached_key(|element| place(patch_order, element));
    others.sort_by_cached_key(|element| place(server_order, element));

    let mut out = Vec::with_capacity(patched.len() + others.len());
    let mut others = others.into_iter().peekable();
    let mut patched = patched.into_iter().peekable();
    while let (Some(other), Some(patch)) = (others.peek(), patched.peek()) {
        let other_place = position(server_order, other, merge_key);
        let patch_place = position(server_order, patch, merge_key);
        let is_other_first =
            matches!((other_place, patch_place), (Some(other), Some(patch)) if other < patch);
        out.extend(if is_other_first { others.next() } else { patched.next() });
    }
    out.extend(others);
    out.extend(patched);
    out
}

//! The objects that a context still owns when its last reference is released.

use crate::state::{Owned, State};

/// Each kind of object with its number, and the first address of memory. Objects whose release
/// failed are not included.
pub(crate) fn of_context(state: &State, context: usize) -> Vec<String> {
    let left = |owned: &Owned| owned.context == context && !owned.given_up;
    let mut found = Vec::new();
    let mut add = |count: usize, what: &str, first: Option<String>| {
        if count > 0 {
            let first = first.map(|first| format!(" (the first of {first})")).unwrap_or_default();
            found.push(format!("{count} {what} alive{first}"));
        }
    };
    let allocations = || state.allocations.values().filter(|allocation| left(&allocation.owned));
    let first = allocations().next().map(|first| format!("{} bytes", first.bytes));
    add(allocations().count(), "allocations", first);
    let registrations = || state.registrations.values().filter(|one| left(&one.owned));
    let first = registrations().next().map(|first| format!("{} bytes", first.bytes));
    add(registrations().count(), "host registrations", first);
    let streams = state.streams.values().filter(|stream| !stream.destroyed && left(&stream.owned));
    add(streams.count(), "streams", None);
    add(state.events.values().filter(|event| left(&event.owned)).count(), "events", None);
    add(state.modules.values().filter(|module| left(&module.owned)).count(), "modules", None);
    add(state.files.buffers_of(state, context), "cuFile buffers", None);
    if state.contexts.len() == 1 {
        add(state.files.handles(), "cuFile handles", None);
    }
    found
}

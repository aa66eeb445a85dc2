//! The order in which the tensors of a load by names are expected to be asked for.
//!
//! ```text
//! told         Order::Names or Order::File: that order
//! by module    modules in the order of the file, numbered ones by their numbers (2 before 10); small
//!              tensors outside of layers come first, as they take no room
//! in file      after a jump that this order explains better
//! ```
//!
//! Programs build models layer by layer. Files are often sorted by name, where layer 10 follows layer 1,
//! and one layer is asked for in an order of its own. That order is learned from the first layers, and
//! expected of the others. A program that goes through the file instead is noticed at its first jump,
//! when it asks for a tensor that the load expected much later: of the two orders, the one with fewer
//! tensors between the last one and this one is expected from then on.

use std::collections::HashMap;
use std::ops::Range;

/// Names are taken apart into this many components at most.
const DEPTH_MAX: usize = 16;
/// Tensors that come first are at most this many, and this share of the memory limit.
const SMALL_COUNT_MAX: usize = 16;
const SMALL_SHARE: u64 = 64;
/// What a tensor takes of a ring at least.
const BLOCK_BYTES: u64 = 4096;

/// A tensor that is loaded: its index in the checkpoint, its name, and its length in bytes.
pub(super) type LoadedName<'a> = (u32, &'a str, u64);

/// The order that is expected, which changes with what was asked for.
pub(super) struct ExpectedOrder {
    /// The place of each tensor of the checkpoint in the order that is told or by module; `ABSENT` if it
    /// is not loaded.
    places: Vec<u32>,
    /// How many tensors come first because they are small.
    small: u32,
    /// What is known of modules; `None` if the order was told.
    modules: Option<Modules>,
    /// The tensor that was handed out last.
    last: Option<u32>,
}

struct Modules {
    /// The place of the first tensor of each tensor's layer.
    layers: Vec<u32>,
    /// The tensor's name within its layer, as a number.
    roles: Vec<u32>,
    /// When the first tensor of each role was asked for; `ABSENT` if none was.
    learned: Vec<u32>,
    asked: u32,
    /// Whether tensors are expected in the order of the file instead.
    in_file_order: bool,
}

/// The place of a tensor that is not there.
pub(super) const ABSENT: u32 = u32::MAX;

/// What tensors are sorted by.
pub(super) type Key = (u32, u32, u32);

impl ExpectedOrder {
    /// The order that the caller has told: the tensors, as indices into those of the checkpoint, which
    /// are `count`.
    pub fn told(order: &[u32], count: usize) -> Self {
        Self { places: places_of(order, count), small: 0, modules: None, last: None }
    }

    /// The order by module of the tensors `loaded` of a checkpoint that has `count`, under a memory limit
    /// of `limit_bytes`.
    pub fn by_module(loaded: &[LoadedName<'_>], count: usize, limit_bytes: u64) -> Self {
        let mut names = NameTree::default();
        let keyed = loaded.iter().map(|tensor| (names.key(tensor.1), *tensor));
        let mut sorted: Vec<_> = keyed.collect();
        sorted.sort_unstable();
        let (mut left_bytes, mut left_count) = (limit_bytes / SMALL_SHARE, SMALL_COUNT_MAX);
        let is_small = |(_, (_, name, bytes)): &(_, LoadedName<'_>)| {
            let bytes = (*bytes).max(1).next_multiple_of(BLOCK_BYTES);
            let fits = bytes <= left_bytes && left_count > 0 && layer_of(name).is_none();
            if fits {
                (left_bytes, left_count) = (left_bytes - bytes, left_count - 1);
            }
            fits
        };
        let (mut order, rest): (Vec<_>, Vec<_>) = sorted.into_iter().partition(is_small);
        let small = order.len() as u32;
        order.extend(rest);
        let order: Vec<_> = order.into_iter().map(|(_, (index, name, _))| (index, name)).collect();
        let indices: Vec<u32> = order.iter().map(|&(index, _)| index).collect();
        let places = places_of(&indices, count);
        let modules = Some(Modules::new(&order, count));
        Self { places, small, modules, last: None }
    }

    /// Whether the tensor is loaded.
    pub fn contains(&self, index: u32) -> bool {
        self.places[index as usize] != ABSENT
    }

    /// Takes note of a tensor that is handed out.
    pub fn note(&mut self, index: u32) {
        self.last = Some(index);
        if let Some(modules) = &mut self.modules {
            let learned = &mut modules.learned[modules.roles[index as usize] as usize];
            if *learned == ABSENT {
                (*learned, modules.asked) = (modules.asked, modules.asked + 1);
            }
        }
    }

    /// Takes note that `target` is asked for, which the load did not expect so soon. Returns whether it
    /// is the next one that is left in one of the orders.
    pub fn jump(&mut self, target: u32, is_left: impl Fn(u32) -> bool) -> bool {
        let Some(last) = self.last else { return false };
        let between = |key: &dyn Fn(u32) -> Key| {
            let (from, to) = (key(last), key(target));
            let is_between = |index: &u32| {
                let at = key(*index);
                from < at && at < to && self.contains(*index) && is_left(*index)
            };
            if from < to { self.indices().filter(is_between).count() } else { usize::MAX }
        };
        let Some(modules) = &self.modules else { return between(&|it| self.key(it)) == 0 };
        let in_file = between(&|it| (it, 0, 0));
        let by_module = between(&|it| self.key_by_module(modules, it));
        if let Some(modules) = self.modules.as_mut().filter(|_| in_file != by_module) {
            modules.in_file_order = in_file < by_module;
        }
        in_file.min(by_module) == 0
    }

    /// What sorts the tensors if `target` is asked for: itself, small ones, the others of its layer,
    /// what follows, and then what comes before.
    pub fn key_from(&self, target: u32) -> impl Fn(u32) -> (u8, Key) {
        let start = match &self.modules {
            Some(modules) if !modules.in_file_order => (modules.layers[target as usize], 0, 0),
            _ => self.key(target),
        };
        move |index| {
            let key = self.key(index);
            let part = match () {
                () if index == target => 0,
                () if self.places[index as usize] < self.small => 1,
                () if key >= start => 2,
                () => 3,
            };
            (part, key)
        }
    }

    /// The tensors that are left, in the order in which they are expected if `target` is asked for.
    pub fn left_from(&self, target: u32, is_left: impl Fn(u32) -> bool) -> Vec<u32> {
        let is_wanted = |index: &u32| self.contains(*index) && is_left(*index);
        let mut order: Vec<u32> = self.indices().filter(is_wanted).collect();
        let key = self.key_from(target);
        order.sort_by_cached_key(|&index| key(index));
        order
    }

    /// All tensors in the order in which they are expected at first.
    pub fn all(&self) -> Vec<u32> {
        let mut order: Vec<u32> = self.indices().filter(|&index| self.contains(index)).collect();
        order.sort_by_key(|&index| self.places[index as usize]);
        order
    }

    fn indices(&self) -> Range<u32> {
        0..self.places.len() as u32
    }

    fn key(&self, index: u32) -> Key {
        match &self.modules {
            Some(modules) if modules.in_file_order => (index, 0, 0),
            Some(modules) => self.key_by_module(modules, index),
            None => (self.places[index as usize], 0, 0),
        }
    }

    fn key_by_module(&self, modules: &Modules, index: u32) -> Key {
        let at = index as usize;
        (modules.layers[at], modules.learned[modules.roles[at] as usize], self.places[at])
    }
}

impl Modules {
    /// The modules of tensors in the order by module, of a checkpoint that has `count`.
    fn new(order: &[(u32, &str)], count: usize) -> Self {
        let (mut layers, mut roles) = (vec![ABSENT; count], vec![0; count]);
        let (mut known_layers, mut known_roles) = (HashMap::new(), HashMap::new());
        for (place, &(index, name)) in (0..).zip(order) {
            let next = known_roles.len() as u32;
            let (layer, role) = match layer_of(name) {
                Some((stack, number, rest)) => (
                    *known_layers.entry((stack, number)).or_insert(place),
                    *known_roles.entry((stack, rest)).or_insert(next),
                ),
                None => (place, *known_roles.entry((name, "")).or_insert(next)),
            };
            (layers[index as usize], roles[index as usize]) = (layer, role);
        }
        let learned = vec![ABSENT; known_roles.len().max(1)];
        Self { layers, roles, learned, asked: 0, in_file_order: false }
    }
}

/// Takes the name of a tensor in a layer apart: `model.layers`, `3`, `mlp.up_proj.weight`.
fn layer_of(name: &str) -> Option<(&str, &str, &str)> {
    let mut start = 0;
    for component in name.split('.') {
        let end = start + component.len();
        if !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit()) {
            let (stack, rest) = (&name[..start.saturating_sub(1)], &name[end..]);
            return Some((stack, component, rest.strip_prefix('.').unwrap_or(rest)));
        }
        start = end + 1;
    }
    None
}

/// The names of tensors as a tree, whose nodes are numbered as they are seen first.
#[derive(Default)]
struct NameTree<'a> {
    /// Components by the numbers of their parents, without the digits at their ends.
    stems: HashMap<(u32, &'a str), u32>,
    nodes: HashMap<(u32, &'a str), u32>,
}

impl<'a> NameTree<'a> {
    /// What sorts `name` by its components: each by where its like was seen first, and by its number.
    fn key(&mut self, name: &'a str) -> Vec<(u32, u32)> {
        let mut parent = 0;
        let components = name.splitn(DEPTH_MAX, '.').map(|component| {
            let stem = component.trim_end_matches(|it: char| it.is_ascii_digit());
            let number = component[stem.len()..].parse().unwrap_or(0);
            let next = self.stems.len() as u32;
            let place = *self.stems.entry((parent, stem)).or_insert(next);
            let next = self.nodes.len() as u32 + 1;
            parent = *self.nodes.entry((parent, component)).or_insert(next);
            (place, number)
        });
        components.collect()
    }
}

/// The place in `list` of each of `count` tensors.
pub(super) fn places_of(list: &[u32], count: usize) -> Vec<u32> {
    let mut places = vec![ABSENT; count];
    (0..).zip(list).for_each(|(place, &index)| places[index as usize] = place);
    places
}

#[cfg(test)]
mod tests;

//! Rules that say which slice of each tensor is loaded.
//!
//! The first rule that matches a tensor counts, as in a [`DeviceMap`](crate::DeviceMap); a tensor that
//! no rule matches is loaded whole. Rules of exact names are found by a hash table, so that a hundred
//! thousand tensors with as many of them take well below a second; the others are tried one by one.
//! Every rule has to match a tensor of the checkpoint, also if an earlier rule counts for it.

use super::parts::TensorPart;
use super::slice::Slice;
use super::tp_plan::TpPlan;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Glob;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The characters that make a text a glob.
const GLOB_CHARACTERS: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Decides about a tensor by its name, type and shape.
pub(crate) type TensorPredicate = Arc<dyn Fn(&TensorInfo) -> bool + Send + Sync>;

/// Which slice of each tensor is loaded: a list of rules, of which the first that matches a tensor
/// counts. A tensor that no rule matches is loaded whole.
///
/// ```
/// use ringload::{Loader, Slice, Slices};
///
/// # fn main() -> ringload::Result<()> {
/// let (rank, world) = (1, 4);
/// let slices = Slices::default()
///     .with("*.o_proj.weight", Slice::share(1, rank, world))?
///     .with("*_proj.weight", Slice::share(0, rank, world))?;
/// let loader = Loader::new().slices(slices);
/// # Ok(())
/// # }
/// ```
///
/// A rule that matches no tensor of the checkpoint is an error of the load, and so is a slice that does
/// not fit the tensor; both are found before anything is read.
#[derive(Clone, Default)]
pub struct Slices {
    rules: Vec<SliceRule>,
    /// Whether the tensors are some of a checkpoint with whose others unused rules may deal.
    of_some: bool,
}

#[derive(Clone)]
struct SliceRule {
    matcher: SliceMatcher,
    slice: Slice,
}

#[derive(Clone)]
enum SliceMatcher {
    Name(String),
    Glob(Glob),
    Predicate(String, TensorPredicate),
    /// Finds the slices of tensors by itself.
    Plan(TpPlan),
}

impl Slices {
    /// Adds a rule after the present ones: of tensors whose name matches `glob`, `slice` is loaded. A
    /// glob without special characters is the name of one tensor.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `glob` is not a valid glob, or no tensor can have the slice.
    pub fn with(self, glob: &str, slice: Slice) -> Result<Self> {
        let matcher = if glob.contains(GLOB_CHARACTERS) {
            SliceMatcher::Glob(Glob::new(glob)?)
        } else {
            SliceMatcher::Name(glob.to_owned())
        };
        self.with_rule(matcher, slice)
    }

    /// Adds a rule after the present ones for the tensor called `name`, whatever characters it has.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if no tensor can have the slice.
    pub fn with_name(self, name: impl Into<String>, slice: Slice) -> Result<Self> {
        self.with_rule(SliceMatcher::Name(name.into()), slice)
    }

    /// Adds a rule after the present ones for the tensors that `matches` accepts, by their names, types
    /// and shapes. Errors call the rule by the text `called`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if no tensor can have the slice.
    pub fn with_matching(
        self,
        called: impl Into<String>,
        matches: impl Fn(&TensorInfo) -> bool + Send + Sync + 'static,
        slice: Slice,
    ) -> Result<Self> {
        self.with_rule(SliceMatcher::Predicate(called.into(), Arc::new(matches)), slice)
    }

    /// Adds the rules of a plan of tensor parallelism, as the configurations of transformers have it:
    /// pairs of the name of a module or parameter, in which `*` stands for a number, and a style such as
    /// `colwise` or `rowwise`. Names may lack the prefix of the checkpoint, such as `model.`.
    ///
    /// Entries that match nothing are ignored, as transformers ignores them (a tied `lm_head` is one),
    /// but a plan of which no entry matches is an error of the load.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a style that is unknown, and for a rank that is not below the
    /// number of ranks.
    pub fn with_tp_plan<K: Into<String>, S: AsRef<str>>(
        mut self,
        plan: impl IntoIterator<Item = (K, S)>,
        rank: usize,
        world: usize,
    ) -> Result<Self> {
        let plan = TpPlan::new(plan, rank, world)?;
        self.rules.push(SliceRule { matcher: SliceMatcher::Plan(plan), slice: Slice::whole() });
        Ok(self)
    }

    /// Adds a rule that is written as `GLOB=DIM:RANK/WORLD`. The glob may contain a `=`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the rule.
    pub fn with_text(self, rule: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid_input(format!(
                "{rule:?} is not a slice; use GLOB=DIM:RANK/WORLD, e.g. '*.o_proj.weight=1:0/4' for \
                 the first of 4 parts of dimension 1"
            ))
        };
        let (glob, share) = rule.rsplit_once('=').ok_or_else(wrong)?;
        let (dim, of) = share.split_once(':').ok_or_else(wrong)?;
        let (rank, world) = of.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| is_number).ok_or_else(wrong)
        };
        let is_dim = !dim.starts_with('+');
        let dim = dim.parse().ok().filter(|_| is_dim).ok_or_else(wrong)?;
        self.with(glob, Slice::share(dim, number(rank)?, number(world)?))
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// These rules for some tensors of a checkpoint, which rules need not match.
    pub(crate) fn of_some(mut self) -> Self {
        self.of_some = true;
        self
    }

    fn with_rule(mut self, matcher: SliceMatcher, slice: Slice) -> Result<Self> {
        let rule = SliceRule { matcher, slice };
        rule.slice.check().map_err(|why| {
            Error::invalid_input(format!("the slice {rule} is of no tensor: {why}"))
        })?;
        self.rules.push(rule);
        Ok(self)
    }

    /// The parts of the `tensors` of `checkpoint`, which are given by their indices; `None` for those
    /// that are loaded whole.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a rule that matches no tensor of the checkpoint,
    /// [`ErrorKind::InvalidInput`] for a slice that does not fit a tensor.
    pub(super) fn parts(
        &self,
        checkpoint: &Checkpoint,
        tensors: &[u32],
    ) -> Result<Vec<Option<TensorPart>>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let index = RuleIndex::new(&self.rules);
        let mut is_used = vec![false; self.rules.len()];
        let mut selected = tensors.iter().peekable();
        let mut parts = Vec::with_capacity(tensors.len());
        for (number, tensor) in (0_u32..).zip(checkpoint.tensors()) {
            let first = index.first(&self.rules, tensor, &mut is_used);
            if selected.next_if_eq(&&number).is_some() {
                parts.push(first.map(|rule| rule.part(tensor)).transpose()?.flatten());
            }
        }
        match is_used.iter().position(|used| !used && !self.of_some) {
            None => Ok(parts),
            Some(unused) => Err(self.rules[unused].unused(checkpoint)),
        }
    }

    /// The part of `tensor`; `None` if it is loaded whole.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a slice that does not fit it.
    pub(crate) fn part_of(&self, tensor: &TensorInfo) -> Result<Option<TensorPart>> {
        let first = self.rules.iter().find(|rule| rule.is_match(tensor));
        Ok(first.map(|rule| rule.part(tensor)).transpose()?.flatten())
    }
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.rules.iter().map(SliceRule::to_string).collect();
        write!(f, "Slices({})", rules.join(", "))
    }
}

impl SliceRule {
    fn is_match(&self, tensor: &TensorInfo) -> bool {
        match &self.matcher {
            SliceMatcher::Name(name) => name == tensor.name(),
            SliceMatcher::Glob(glob) => glob.is_match(tensor.name()),
            SliceMatcher::Predicate(_, matches) => matches(tensor),
            SliceMatcher::Plan(plan) => plan.slice_of(tensor).is_some(),
        }
    }

    /// The part of `tensor`, which the rule matches; `None` if that is all of it.
    fn part(&self, tensor: &TensorInfo) -> Result<Option<TensorPart>> {
        let slice = match &self.matcher {
            SliceMatcher::Plan(plan) => {
                plan.slice_of(tensor).map_or(Cow::Borrowed(&self.slice), Cow::Owned)
            }
            _ => Cow::Borrowed(&self.slice),
        };
        TensorPart::new(tensor, &slice).map_err(|why| {
            let (name, dtype, shape) = (tensor.name(), tensor.dtype(), tensor.shape());
            Error::invalid_input(format!(
                "tensor {name:?} of {dtype} {shape:?} cannot be sliced by the rule {self}: {why}"
            ))
        })
    }

    fn unused(&self, checkpoint: &Checkpoint) -> Error {
        let missing = match &self.matcher {
            SliceMatcher::Name(name) => checkpoint.position(name).is_none().then_some(name),
            _ => None,
        };
        let what = match missing {
            Some(name) => format!("the checkpoint has no tensor called {name:?}, of which a slice"),
            None => format!("no tensor matches the slice {self}, which"),
        };
        let sentence = format!("{what} is to be loaded; `ringload inspect` lists the names");
        Error::new(ErrorKind::NotFound, sentence)
    }
}

impl fmt::Display for SliceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.matcher {
            SliceMatcher::Name(text) | SliceMatcher::Predicate(text, _) => {
                write!(f, "{text}={}", self.slice)
            }
            SliceMatcher::Glob(glob) => write!(f, "{glob}={}", self.slice),
            SliceMatcher::Plan(plan) => plan.fmt(f),
        }
    }
}

/// Finds the rules of a tensor without trying each.
struct RuleIndex<'a> {
    by_name: HashMap<&'a str, Vec<usize>>,
    /// The rules that are tried one by one.
    others: Vec<usize>,
}

impl<'a> RuleIndex<'a> {
    fn new(rules: &'a [SliceRule]) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut others = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            match &rule.matcher {
                SliceMatcher::Name(name) => by_name.entry(name).or_default().push(number),
                SliceMatcher::Glob(_) | SliceMatcher::Predicate(..) | SliceMatcher::Plan(_) => {
                    others.push(number);
                }
            }
        }
        Self { by_name, others }
    }

    /// The first rule that matches `tensor`. All that match it are marked as used.
    fn first(
        &self,
        rules: &'a [SliceRule],
        tensor: &TensorInfo,
        is_used: &mut [bool],
    ) -> Option<&'a SliceRule> {
        let by_name = self.by_name.get(tensor.name()).into_iter().flatten().copied();
        let others = self.others.iter().copied().filter(|&rule| rules[rule].is_match(tensor));
        let matching = by_name.chain(others);
        let first = matching.inspect(|&rule| is_used[rule] = true).min();
        first.map(|rule| &rules[rule])
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;

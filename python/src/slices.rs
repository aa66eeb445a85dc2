//! The slices of a loader, as the Python package passes them: a list of rules, each of which is a glob
//! with ranges or with a share, or a `tp_plan`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use ringload::{Result, Slice, SliceRange, Slices};

/// The start, stop and step of one dimension.
type Range = (Option<isize>, Option<isize>, isize);

/// A rule of slices.
#[derive(FromPyObject)]
enum Rule {
    /// A glob, and the ranges of the first dimensions.
    Ranges(String, Vec<Range>),
    /// A glob; dimension, rank, number of ranks, pieces that are divided each, elements of a block.
    Share(String, (isize, usize, usize, usize, usize)),
    /// The names and styles of a plan, rank, number of ranks.
    Plan(Vec<(String, String)>, usize, usize),
}

/// The rules of slices that Python gave.
#[derive(Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Returns the rules in the argument `slices`.
    ///
    /// # Errors
    /// A `TypeError` for other values.
    pub(crate) fn of(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        given.extract().map(Self).map_err(|_| {
            let sentence = "Loader takes slices as a list of rules; use ringload.load and its kin";
            PyTypeError::new_err(sentence)
        })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rules as the library has them.
    ///
    /// # Errors
    /// The error of the first rule that no tensor can have.
    pub(crate) fn slices(&self) -> Result<Slices> {
        self.0.iter().try_fold(Slices::default(), |slices, rule| match rule {
            Rule::Ranges(glob, ranges) => {
                let range = |&(start, end, step): &Range| SliceRange { start, end, step };
                slices.with(glob, Slice::new(ranges.iter().map(range)))
            }
            Rule::Share(glob, (dim, rank, world, packed, block)) => {
                let share = Slice::share(*dim, *rank, *world);
                slices.with(glob, share.packed(*packed).blocks_of(*block))
            }
            Rule::Plan(plan, rank, world) => {
                let entries = plan.iter().map(|(name, style)| (name, style));
                slices.with_tp_plan(entries, *rank, *world)
            }
        })
    }
}

//! Checks the correctness of what is measured. Each row tries many cases and stops at the first
//! failed one.

mod kernels;
mod loads;

use crate::gpu::Gpu;
use crate::places::Places;
use crate::report::Check;
use anyhow::Result;

/// The amount of checks.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Bytes that each kernel is given
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = crate::figures::size_bytes)]
    check_bytes: u64,
    /// Seed of random input
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Checks everything.
pub fn all(gpu: &Gpu, places: &Places, args: &CheckArgs) -> Vec<Check> {
    let mut checks = Vec::new();
    kernels::all(gpu, args, &mut checks);
    loads::all(gpu, places, args, &mut checks);
    checks
}

/// Adds a row; `work` returns the number of passed cases.
fn row(checks: &mut Vec<Check>, name: impl Into<String>, work: impl FnOnce() -> Result<usize>) {
    let name = name.into();
    let (cases, error) = match work() {
        Ok(cases) => (cases, None),
        Err(error) => (0, Some(format!("{error:#}"))),
    };
    let outcome = error.as_ref().map_or("right".to_owned(), |error| format!("WRONG: {error}"));
    eprintln!("check: {name}: {outcome}");
    checks.push(Check { name, cases, error });
}

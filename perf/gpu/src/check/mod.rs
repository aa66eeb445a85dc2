//! Checks the correctness of what is measured. Each row tries many cases and stops at the first
//! failed one.

mod kernels;
mod loads;

pub use kernels::all as kernels;
pub use loads::{all as loads, one_load};

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

impl CheckArgs {
    /// The bytes that each kernel is given.
    pub fn bytes(&self) -> u64 {
        self.check_bytes
    }
}

//! Measures ringload beside its peers and the limits of the hardware.

mod records;
mod stats;

fn main() {}

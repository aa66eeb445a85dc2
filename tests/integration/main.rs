//! The tests of the library and the command from outside, in one binary, which is linked once:
//! `cargo test --test integration NAME::` runs one of the modules.
//!
//! Tests run beside each other in this process, so none of them changes what belongs to a process as
//! a whole; `tests/process` has those. A module is left out where the features that it needs are off.

#![allow(clippy::unwrap_used)] // Clippy sees helpers of a test binary as no tests

#[path = "../common/mod.rs"]
mod common;
#[allow(unsafe_code)]
#[path = "../support/no_uring.rs"]
mod no_uring;
mod slices;
mod source_tree;

mod cache;
mod cancellation;
mod capi_headers;
mod connections;
mod crypto_provider;
mod cuda_crate;
mod cuda_numa;
mod cuda_unified;
mod fault_times;
mod faults;
mod kernels;
mod layers;
mod lending_model;
mod lent_memory;
mod low_water;
mod manifests;
mod messages;
mod named;
mod public_api;
mod round_trip;
mod stand_in;

#[cfg(feature = "capi")]
mod capi;

// These run the command.
#[cfg(feature = "cli")]
mod attack_plants;
#[cfg(feature = "cli")]
mod attack_stage;
#[cfg(feature = "cli")]
mod attacks;
#[cfg(all(feature = "cli", feature = "azure"))]
mod azure;
#[cfg(feature = "cli")]
mod bad_input;
#[cfg(feature = "cli")]
mod bounds;
#[cfg(feature = "cli")]
mod cache_attacks;
#[cfg(feature = "cli")]
mod cache_command;
#[cfg(feature = "cli")]
mod cache_faults;
#[cfg(feature = "cli")]
mod cache_tag;
#[cfg(feature = "cli")]
mod casts;
#[cfg(all(feature = "cli", feature = "s3"))]
mod chaos;
#[cfg(all(feature = "cli", feature = "s3"))]
mod chaos_faults;
#[cfg(all(feature = "cli", feature = "s3"))]
mod chaos_scene;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cuda;
#[cfg(feature = "cli")]
mod cuda_gds;
#[cfg(all(feature = "cli", feature = "s3"))]
mod docs;
#[cfg(feature = "cli")]
mod environment;
#[cfg(feature = "cli")]
mod fallbacks;
#[cfg(feature = "cli")]
mod fetch_verified;
mod few_connections;
#[cfg(all(feature = "cli", feature = "gcs"))]
mod gcs;
#[cfg(feature = "cli")]
mod hold;
#[cfg(feature = "cli")]
mod hub;
#[cfg(all(feature = "cli", feature = "s3"))]
mod identities;
#[cfg(feature = "cli")]
mod json_text;
#[cfg(feature = "cli")]
mod late_memory;
#[cfg(all(feature = "cli", feature = "s3"))]
mod naming;
#[cfg(feature = "cli")]
mod observability;
#[cfg(feature = "cli")]
mod output_files;
#[cfg(all(feature = "cli", feature = "s3"))]
mod pinning;
#[cfg(feature = "cli")]
mod process_limits;
#[cfg(feature = "cli")]
mod refusals;
#[cfg(all(feature = "cli", feature = "s3"))]
mod s3;
#[cfg(feature = "cli")]
mod secrets;
#[cfg(feature = "cli")]
mod special_files;
#[cfg(feature = "cli")]
mod standard_streams;
#[cfg(feature = "cli")]
mod tls;
#[cfg(feature = "cli")]
mod trace;
#[cfg(feature = "cli")]
mod verification;
#[cfg(feature = "cli")]
mod web;

//! Hostile input and places, seen from outside.

#![allow(clippy::unwrap_used)]

mod common;

#[path = "outside/special_files.rs"]
mod special_files;

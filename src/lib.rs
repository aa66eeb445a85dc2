//! ringload
pub mod error;

//! Whether a GPU has room for a load: asked before anything is copied.

use super::context::Entered;
use super::layout::Layout;
use super::memory::check_is_of_gpu;
use crate::error::{Error, ErrorKind, Result};

/// Fails unless the GPU has room for the tensors of `layout` and `staging_bytes` besides, and the
/// memory that is lent is its own.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`], naming both figures; [`ErrorKind::InvalidInput`].
pub(super) fn check(entered: &Entered<'_>, layout: &Layout, staging_bytes: u64) -> Result<()> {
    for &(address, len_bytes) in layout.lent() {
        check_is_of_gpu(entered, address, len_bytes)?;
    }
    let tensors = layout.needed_bytes();
    let (free, total) = entered.memory_bytes()?;
    if tensors + staging_bytes <= free {
        return Ok(());
    }
    let staging = match staging_bytes {
        0 => String::new(),
        bytes => format!(" (and {bytes} for staging)"),
    };
    let gpu = entered.context().device();
    Err(Error::new(
        ErrorKind::OutOfMemory,
        format!(
            "{gpu}: the tensors need {tensors} bytes{staging} and {free} of the GPU's {total} are \
             free; free some, or load fewer tensors there (a device map spreads them)"
        ),
    ))
}

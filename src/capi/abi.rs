//! Helpers of all functions of the C library: stopping panics, and reading C texts and arrays.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::align_of;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// Returns the result of `body`, or `panicked` if it panics: a panic must not unwind into C.
pub fn guarded<T>(panicked: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(panicked)
}

/// Returns the text at `text`, or `None` for NULL.
///
/// # Safety
/// Unless `text` is NULL, it is terminated by a zero byte and does not change while the result is
/// used.
pub unsafe fn text<'a>(text: *const c_char) -> Option<&'a OsStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL; the rest is this function's contract.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// As [`text()`]; `None` also for text that is not UTF-8.
///
/// # Safety
/// As for [`text()`].
pub unsafe fn utf8<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: this function's contract.
    unsafe { self::text(text) }?.to_str()
}

/// Returns the `count` items at `items`. `None` if they cannot be an array: `items` is NULL
/// although `count` is not 0, or misaligned, or the size exceeds the address space.
///
/// # Safety
/// Otherwise there are `count` items, which do not change while the result is used.
pub unsafe fn items<'a, T>(items: *const T, count: usize) -> Option<&'a [T]> {
    if count == 0 {
        return Some(&[]);
    }
    let bytes = count.checked_mul(size_of::<T>())?;
    let fits = isize::try_from(bytes).is_ok() && items.addr().is_multiple_of(align_of::<T>());
    if items.is_null() || !fits {
        return None;
    }
    // SAFETY: not NULL, aligned, not too large; the rest is this function's contract.
    Some(unsafe { slice::from_raw_parts(items, count) })
}

/// Returns the `count` texts that `texts` points to, or `None` if one of them is NULL.
///
/// # Safety
/// As for [`items`] and, for each text, [`text()`].
pub unsafe fn texts<'a>(texts: *const *const c_char, count: usize) -> Option<Vec<&'a OsStr>> {
    // SAFETY: this function's contract.
    let pointers = unsafe { items(texts, count) }?;
    // SAFETY: this function's contract.
    pointers.iter().map(|&pointer| unsafe { text(pointer) }).collect()
}

/// Writes `value` to `out`, unless that is NULL.
///
/// # Safety
/// Unless `out` is NULL, it points to memory for a `T`.
pub unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: this function's contract. C need not have aligned the pointer.
        unsafe { out.write_unaligned(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn impossible_arrays_are_refused() {
        let numbers = [1_u32, 2];
        // SAFETY: NULL, misaligned and overlong arrays are refused, the others are there.
        unsafe {
            assert_eq!(items(numbers.as_ptr(), 2), Some(&numbers[..]));
            assert_eq!(items::<u32>(ptr::null(), 0), Some(&[][..]));
            assert_eq!(items::<u32>(ptr::null(), 1), None);
            assert_eq!(items(numbers.as_ptr().byte_add(1), 1), None);
            assert_eq!(items(numbers.as_ptr(), usize::MAX), None);
            assert_eq!(texts([c"a".as_ptr(), ptr::null()].as_ptr(), 2), None);
            assert_eq!(utf8(c"\xff".as_ptr()), None);
        }
    }

    #[test]
    fn panics_stop_here() {
        assert_eq!(guarded(7, || panic!("on purpose")), 7);
    }
}

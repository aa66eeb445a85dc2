//! What every function of the C library needs: panics that stop here, texts and arrays of C.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::align_of;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// What `body` gives, or `panicked` if it panics: no panic may leave a function that C called.
pub fn guarded<T>(panicked: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(panicked)
}

/// The text at `text`; `None` for NULL.
///
/// # Safety
/// Unless it is NULL, a zero byte ends it, and it stays as it is while the result is used.
pub unsafe fn text<'a>(text: *const c_char) -> Option<&'a OsStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL; the rest is this function's contract.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// As [`text()`], of what is UTF-8.
///
/// # Safety
/// As for [`text()`].
pub unsafe fn utf8<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: this function's contract.
    unsafe { self::text(text) }?.to_str()
}

/// The `count` items at `items`; `None` for what no array is: NULL, unless it has no items, and what
/// is not aligned or too large.
///
/// # Safety
/// Else there are so many, and they stay as they are while the result is used.
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

/// The `count` texts that the pointers at `texts` lead to; `None` where one is NULL.
///
/// # Safety
/// As for [`items`] and, of each, for [`text()`].
pub unsafe fn texts<'a>(texts: *const *const c_char, count: usize) -> Option<Vec<&'a OsStr>> {
    // SAFETY: this function's contract.
    let pointers = unsafe { items(texts, count) }?;
    // SAFETY: this function's contract.
    pointers.iter().map(|&pointer| unsafe { text(pointer) }).collect()
}

/// Writes `value` to `place`, unless that is NULL.
///
/// # Safety
/// Unless it is NULL, a value can be written there.
pub unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: this function's contract; C may not have aligned it.
        unsafe { place.write_unaligned(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn what_is_no_array_is_seen() {
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

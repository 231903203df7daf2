//! Native strings, as PEP 3333 calls them: Python `str` of which each character stands for one byte.

#![expect(
    unsafe_code,
    reason = "PyO3 makes strings of UTF-8 only: to turn bytes into it first costs more than the string"
)]

use std::borrow::Cow;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Bytes as a native string.
pub(crate) fn native<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = ffi::Py_ssize_t::try_from(bytes.len())?;
    // SAFETY: the bytes are as long as is said, and are copied; what comes back is a new reference to a `str`, or null with an exception set.
    let made = unsafe {
        let made = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Bound::from_owned_ptr_or_err(py, made)?
    };
    Ok(made.cast_into::<PyString>()?)
}

/// The bytes of a native string; `None` if a character is no byte.
pub(crate) fn bytes<'a>(text: &'a Bound<'_, PyString>) -> Option<Cow<'a, [u8]>> {
    // A lone surrogate has no UTF-8, and is no byte either.
    let text = text.to_str().ok()?;
    if text.is_ascii() {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    text.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<_>>>().map(Cow::Owned)
}

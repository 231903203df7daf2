//! The layer.

/// Mounts.
#[derive(Clone, Debug)]
pub struct PyAsgiLayer {}

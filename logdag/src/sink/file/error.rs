//! What is wrong with the values of a rotation.

/// A value of a rotation that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct RotationError {
    /// What it should have been.
    pub expected: String,
}

impl RotationError {
    pub(super) fn new(expected: impl Into<String>) -> Self {
        Self { expected: expected.into() }
    }
}

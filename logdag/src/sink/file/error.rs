//! What is wrong with the values of a rotation.

/// An invalid value of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct RotationError {
    /// What was expected.
    pub expected: String,
}

impl RotationError {
    pub(super) fn new(expected: impl Into<String>) -> Self {
        Self { expected: expected.into() }
    }
}

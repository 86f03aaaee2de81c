//! Golden directories

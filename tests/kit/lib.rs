//! The kit of tests.

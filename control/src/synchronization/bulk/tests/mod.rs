//! Both sides against each other, and against peers that do what they should not.
#![allow(clippy::unwrap_used)]

//! Conditions: CEL.
/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {}

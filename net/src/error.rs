//! What an error means for whoever has to act on it.

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may pass by itself: try again.
    Retry,
    /// What is asked for cannot be done as it is: wait for a change.
    Invalid,
    /// Somebody else has what is asked for.
    Conflict,
    /// A defect of ours.
    Bug,
}

//! Which fields of a VM this version honours.
//!
//! A field that is known but not honoured is refused by its name, never ignored; one that has no
//! meaning on a single host, such as a node selector, is accepted with a warning. This is apart
//! from validation: a manifest that is refused here is right, and a later version may take it.
//!
//! Invariant: the tables name each field of the VM and VMI spec; a test walks the types' schema.
//! To move a field, change its line.

mod fields;
mod walk;

pub use walk::{Findings, Refusal, Warning, check, check_vm};

/// What happens to a field that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Honour {
    /// It has its full effect.
    Yes,
    /// It has its full effect with these values, and is refused with others.
    Only(&'static [&'static str]),
    /// It, with all below it, is refused. The text says what to use instead, if there is
    /// anything; else it is empty.
    No(&'static str),
    /// It, with all below it, is accepted without effect. The text says why that does no harm.
    Ignored(&'static str),
}

#[cfg(test)]
mod tests;

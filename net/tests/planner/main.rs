//! The planner over a fake kernel with state: properties, and cases as folders of current, desired and plan.

#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod cases;
mod fake;
mod properties;

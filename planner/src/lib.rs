//! The judgement of a NovaCron cluster: given a state, what should be proposed, and why.
//!
//! Pure: no I/O and no clock, so that a plan for people and a plan that is carried out come from the
//! same function. A plan is a proposal; `decide` has the last word.

pub mod place;

//! What is measured, one file for each row of the table, or for rows that are measured together.

pub(crate) mod append;
pub(crate) mod failover;
pub(crate) mod guests;
pub(crate) mod idle;
pub(crate) mod lists;
pub(crate) mod many;
pub(crate) mod mixed;
pub(crate) mod placement;
pub(crate) mod reads;
pub(crate) mod traces;
pub(crate) mod watches;
pub(crate) mod writes;

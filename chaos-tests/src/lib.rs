//! Workloads on a cluster, and what must hold of them whatever happens to it. The faults are among
//! the tests; the cluster is the lab's.

mod registers;

pub use registers::{Lost, Registers, Writers};

//! Workloads on a cluster of real processes, what befalls it, and what must hold whatever does.
//!
//! A [`run`] starts a cluster of the lab, has clients use it and faults strike it, several at once and each
//! with proof, and keeps the [history](history) of what clients saw. Checkers judge that history.

mod afterwards;
mod checker;
mod counters;
mod fault;
mod history;
mod nemesis;
mod page;
mod run;
mod simulation;
mod soak;
mod summary;
mod users;
mod workload;

pub use checker::{Judgement, Violation};
pub use counters::{Counters, Lost, Writers};
pub use nemesis::{Reign, Strike};
pub use run::{Plan, is_possible, judge_file, notices, run};
pub use simulation::{Simulated, SimulationPlan, simulate};
pub use soak::Soak;
pub use summary::{Counts, Struck, Summary};

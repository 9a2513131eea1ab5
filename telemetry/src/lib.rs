//! How NovaCron says what it measures.
//!
//! A metric is a constant of the crate that measures it, in that crate's `metrics.rs`: its name, what it is, its
//! labels and what bounds each of them. All constants of a crate stand in its `INVENTORY`; the inventories are the
//! page docs/metrics.md, the `# HELP` of what is scraped, and the buckets of histograms.
//!
//! Two kinds of numbers are told apart. What *happens* is counted where it happens, in the recorder of the process
//! ([`Counter`], [`Histogram`], [`Level`]). What *is* ([`Gauge`]) is read when somebody asks, from the state of the
//! node that is asked, and belongs to that answer alone: no series outlives what it is about.

/// Series that may be kept at hand.
pub mod series {
    pub use metrics::{Counter, Histogram};
}

mod metric;
mod recorder;
pub mod trace;

pub use metric::{
    Attendance, Counter, Described, Gauge, Histogram, Kind, Label, Level, Metric, Number, Present,
    SECONDS, SYNC_SECONDS, Sum,
};
pub use recorder::{Recorder, render};

/// What is measured here.
pub static INVENTORY: &[Described] = &[trace::SPANS.described()];

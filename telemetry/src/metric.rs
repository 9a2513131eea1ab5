//! One metric: what it is called, what it is, how it is broken down.

use std::{marker::PhantomData, time::Duration};

use metrics::{Key, Metadata, SharedString};

/// Seconds, for what a person waits for: a millisecond to five minutes.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Seconds, for what a disk takes: a tenth of a millisecond to ten seconds.
pub const SYNC_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256,
    0.512, 1.0, 10.0,
];

const METADATA: Metadata<'static> = Metadata::new("novacron", metrics::Level::INFO, None);

/// A label, and what bounds its values: an unbounded one would end Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What its values are, and how many there can be.
    pub values: &'static str,
}

/// What Prometheus takes a metric for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often each of these was not exceeded.
    Histogram(&'static [f64]),
}

/// What a metric says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Described {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// A sentence about it.
    pub help: &'static str,
    /// What it is broken down by.
    pub labels: &'static [Label],
}

/// A metric with so many labels, that is used in one way.
#[derive(Clone, Copy, Debug)]
pub struct Metric<const LABELS: usize, Use> {
    name: &'static str,
    help: &'static str,
    labels: [Label; LABELS],
    kind: Kind,
    how: PhantomData<Use>,
}

/// What happens, counted where it happens.
pub type Counter<const LABELS: usize> = Metric<LABELS, Counted>;
/// How long or how much it was each time, seen where it happens.
pub type Histogram<const LABELS: usize> = Metric<LABELS, Spread>;
/// How many there are at present, where they come and go.
pub type Level<const LABELS: usize> = Metric<LABELS, Kept>;
/// What is so at present, read when somebody asks.
pub type Gauge<const LABELS: usize> = Metric<LABELS, Read>;

/// What has happened since the process began, read when somebody asks.
pub type Sum<const LABELS: usize> = Metric<LABELS, Summed>;

/// See [`Counter`].
#[derive(Clone, Copy, Debug)]
pub struct Counted;
/// See [`Histogram`].
#[derive(Clone, Copy, Debug)]
pub struct Spread;
/// See [`Level`].
#[derive(Clone, Copy, Debug)]
pub struct Kept;
/// See [`Gauge`].
#[derive(Clone, Copy, Debug)]
pub struct Read;
/// See [`Sum`].
#[derive(Clone, Copy, Debug)]
pub struct Summed;

impl<const LABELS: usize, Use> Metric<LABELS, Use> {
    const fn make(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
        kind: Kind,
    ) -> Self {
        Metric { name, help, labels, kind, how: PhantomData }
    }

    /// What it says of itself.
    #[must_use]
    pub const fn described(&'static self) -> Described {
        Described { name: self.name, kind: self.kind, help: self.help, labels: &self.labels }
    }

    fn key<S: Into<SharedString>>(&self, values: [S; LABELS]) -> Key {
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| metrics::Label::new(label.name, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

impl<const LABELS: usize> Counter<LABELS> {
    /// One of this name, which ends in `_total`.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
    ) -> Counter<LABELS> {
        Metric::make(name, help, labels, Kind::Counter)
    }

    /// The series of these values. It may be kept: to look it up costs more than to count.
    pub fn of<S: Into<SharedString>>(&self, values: [S; LABELS]) -> metrics::Counter {
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }
}

impl<const LABELS: usize> Histogram<LABELS> {
    /// One of this name, which ends in its unit, with these buckets.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
        buckets: &'static [f64],
    ) -> Histogram<LABELS> {
        Metric::make(name, help, labels, Kind::Histogram(buckets))
    }

    /// The series of these values. It may be kept.
    pub fn of<S: Into<SharedString>>(&self, values: [S; LABELS]) -> metrics::Histogram {
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }
}

impl<const LABELS: usize> Level<LABELS> {
    /// One of this name, which ends in its unit if it has one.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
    ) -> Level<LABELS> {
        Metric::make(name, help, labels, Kind::Gauge)
    }

    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn enter<S: Into<SharedString>>(&self, values: [S; LABELS]) -> Present {
        self.of(values).enter()
    }

    /// The series of these values. It may be kept.
    pub fn of<S: Into<SharedString>>(&self, values: [S; LABELS]) -> Attendance {
        let key = self.key(values);
        Attendance(metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)))
    }
}

/// One series of a [`Level`].
#[derive(Clone)]
pub struct Attendance(metrics::Gauge);

impl Attendance {
    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn enter(&self) -> Present {
        self.0.increment(1.0);
        Present(self.0.clone())
    }
}

/// Something that is counted in a [`Level`] while it is there.
pub struct Present(metrics::Gauge);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl<const LABELS: usize> Gauge<LABELS> {
    /// One of this name, which ends in its unit if it has one.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
    ) -> Gauge<LABELS> {
        Metric::make(name, help, labels, Kind::Gauge)
    }

    /// Says what it is, within [`Recorder::read`](crate::Recorder::read).
    pub fn set<S: Into<SharedString>>(&self, values: [S; LABELS], value: impl Number) {
        let key = self.key(values);
        let gauge = metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA));
        gauge.set(value.to_f64());
    }
}

impl<const LABELS: usize> Sum<LABELS> {
    /// One of this name, which ends in `_total`.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [Label; LABELS],
    ) -> Sum<LABELS> {
        Metric::make(name, help, labels, Kind::Counter)
    }

    /// Says how much it is, within [`Recorder::read`](crate::Recorder::read).
    pub fn set<S: Into<SharedString>>(&self, values: [S; LABELS], value: u64) {
        let key = self.key(values);
        let sum = metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA));
        sum.absolute(value);
    }
}

/// What a gauge can hold.
pub trait Number {
    /// It, as Prometheus has it.
    fn to_f64(self) -> f64;
}

impl Number for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}

impl Number for bool {
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Number for u64 {
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts one by one")]
    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts one by one")]
    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Number for u32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Number for Duration {
    fn to_f64(self) -> f64 {
        self.as_secs_f64()
    }
}

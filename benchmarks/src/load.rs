//! Load in a closed loop: so many clients, each of which asks again as soon as it is answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hdrhistogram::Histogram;

/// Who asks again and again.
#[async_trait]
pub(crate) trait Asker: Send {
    /// Asks once; the answer has come when this returns.
    async fn ask(&mut self) -> Result<()>;
}

/// One for each client.
pub(crate) type Askers = Vec<Box<dyn Asker>>;

/// For how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lasting {
    /// What is asked in this time is not counted.
    pub(crate) warm_up: Duration,
    /// What is asked in this time is.
    pub(crate) counted: Duration,
}

impl Lasting {
    /// For a part of it.
    pub(crate) fn divided(self, by: u32) -> Lasting {
        Lasting { warm_up: self.warm_up / by, counted: self.counted / by }
    }
}

/// What was seen of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What was asked and answered, per second.
    pub(crate) per_s: f64,
    /// Half of the answers took no longer, milliseconds.
    pub(crate) p50_ms: f64,
    /// 95 of 100 took no longer, milliseconds.
    pub(crate) p95_ms: f64,
    /// 99 of 100 took no longer, milliseconds.
    pub(crate) p99_ms: f64,
    /// How many were asked and answered.
    pub(crate) asked: u64,
}

/// No answer takes longer.
const LONGEST: Duration = Duration::from_secs(60);
const LONGEST_US: u64 = 60_000_000;

/// For times in microseconds.
///
/// # Errors
/// Never, with these bounds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    const DIGITS: u8 = 3;
    Ok(Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?)
}

/// Has all of them ask for so long.
///
/// # Errors
/// With the first refusal: a load with refusals in it is no figure.
pub(crate) async fn drive(askers: Askers, lasting: Lasting) -> Result<Seen> {
    let begin = Instant::now() + lasting.warm_up;
    let end = begin + lasting.counted;
    let mut all = tokio::task::JoinSet::new();
    for mut asker in askers {
        all.spawn(async move {
            let mut times = histogram()?;
            loop {
                let asked = Instant::now();
                // One that was answered at least once has a figure, however slow the machine.
                if asked >= end && !times.is_empty() {
                    return anyhow::Ok(times);
                }
                let answer = tokio::time::timeout(LONGEST, asker.ask()).await;
                answer.context("there was no answer in a minute")??;
                // By when it was asked: a pause across the end is not lost.
                if asked >= begin {
                    let took = asked.elapsed().as_micros();
                    times.saturating_record(u64::try_from(took).unwrap_or(LONGEST_US).max(1));
                }
            }
        });
    }
    seen(all, lasting.counted).await
}

/// Has all of them ask at a fixed rate, each in its turn. What takes long makes what comes after it late, and that
/// counts.
///
/// # Errors
/// As [`drive`].
pub(crate) async fn pace(askers: Askers, per_s: u32, lasting: Duration) -> Result<Seen> {
    let begin = tokio::time::Instant::now();
    let each = Duration::from_secs(1) / per_s;
    let turn = each * u32::try_from(askers.len())?;
    let mut all = tokio::task::JoinSet::new();
    for (number, mut asker) in askers.into_iter().enumerate() {
        let mut due = begin + each * u32::try_from(number)?;
        all.spawn(async move {
            let mut times = histogram()?;
            // What is behind by as much as all of it is left out: the rate is not held then, and that is told.
            while due < begin + lasting && tokio::time::Instant::now() < begin + 2 * lasting {
                tokio::time::sleep_until(due).await;
                let answer = tokio::time::timeout(LONGEST, asker.ask()).await;
                answer.context("there was no answer in a minute")??;
                let took = due.elapsed().as_micros();
                times.saturating_record(u64::try_from(took).unwrap_or(LONGEST_US).max(1));
                due += turn;
            }
            anyhow::Ok(times)
        });
    }
    let seen = seen(all, lasting).await?;
    // What came after the end was late.
    let took = begin.elapsed().max(lasting);
    Ok(Seen { per_s: seen.asked as f64 / took.as_secs_f64(), ..seen })
}

async fn seen(
    mut all: tokio::task::JoinSet<Result<Histogram<u64>>>,
    lasting: Duration,
) -> Result<Seen> {
    let mut times = histogram()?;
    while let Some(one) = all.join_next().await {
        times.add(one.context("a client panicked")??)?;
    }
    let millis = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Seen {
        per_s: times.len() as f64 / lasting.as_secs_f64(),
        p50_ms: millis(0.5),
        p95_ms: millis(0.95),
        p99_ms: millis(0.99),
        asked: times.len(),
    })
}

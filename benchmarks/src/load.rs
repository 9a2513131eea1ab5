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

/// What was seen of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What was asked and answered, per second.
    pub(crate) per_s: f64,
    /// Half of the answers took no longer, milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer, milliseconds.
    pub(crate) p99_ms: f64,
}

/// No answer takes longer.
const LONGEST: Duration = Duration::from_secs(60);
const LONGEST_US: u64 = 60_000_000;

fn histogram() -> Result<Histogram<u64>> {
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
                if asked >= end {
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
    let mut times = histogram()?;
    while let Some(one) = all.join_next().await {
        times.add(one.context("a client panicked")??)?;
    }
    let millis = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Seen {
        per_s: times.len() as f64 / lasting.counted.as_secs_f64(),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
    })
}

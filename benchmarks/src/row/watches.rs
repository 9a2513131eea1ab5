//! Row 9: many who watch everything, while it changes: how late each hears of a change, and that each hears of all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use client::{Client, v1};
use tokio::task::JoinSet;
use tonic::{Streaming, transport::Channel};

use crate::{
    api::{self, WatchCreateRequest, watch_client::WatchClient, watch_request::RequestUnion},
    book::{Aim, Book},
    field::Field,
    load::{Asker, Askers, histogram, pace},
    row::writes::{Maker, Put, create, update},
};

/// Changes each second, and how often that is taken: more than the machine can tell is told once.
const CHANGES: [(u32, usize); 2] = [(100, 3), (1_000, 1)];
/// Who make them.
const CHANGERS: usize = 32;
/// How long after the last change its news may come: what has not come then is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures the row.
pub(crate) async fn measure(field: &Field, book: &mut Book) -> Result<()> {
    let begun = Instant::now();
    let watchers = field.extent.watchers;
    for (number, client) in field.clients(CHANGERS).await?.into_iter().enumerate() {
        create(&Maker::calls(client), &format!("{PREFIX}{number}"), true).await?;
    }
    field.ours.settled(PATIENCE).await?;
    for (changes, rounds) in CHANGES {
        let (mut ours, mut etcd) = (Vec::new(), Vec::new());
        for _ in 0..rounds.min(field.extent.rounds) {
            field.etcd.pause()?;
            let revision = field.ours.revision().await?;
            let mut follow: Vec<Box<dyn Follow>> = Vec::new();
            for client in field.clients(watchers).await? {
                follow.push(Box::new(Ours::begin(&client, revision)));
            }
            let mut askers: Askers = Vec::new();
            for (number, client) in field.clients(CHANGERS).await?.into_iter().enumerate() {
                let vm = format!("{PREFIX}{number}");
                askers.push(Box::new(Change { maker: Maker::calls(client), vm, begun }));
            }
            ours.push(watched(follow, askers, changes, field, begun).await?);
            field.ours.pause()?;
            field.etcd.resume(field.extent.settle).await?;
            let mut follow: Vec<Box<dyn Follow>> = Vec::new();
            for channel in field.channels(watchers).await? {
                follow.push(Box::new(Etcd::begin(channel).await?));
            }
            let channels = field.channels(CHANGERS).await?.into_iter();
            let put = |channel| Box::new(Stamp { put: Put::new(channel), begun }) as _;
            etcd.push(watched(follow, channels.map(put).collect(), changes, field, begun).await?);
            field.ours.resume(field.extent.settle).await?;
        }
        let all = |figure: fn(&Watched) -> f64| {
            (ours.iter().map(figure).collect(), etcd.iter().map(figure).collect())
        };
        let case = format!("{watchers} watchers, {changes} changes a second");
        book.beside(9, &case, "ms, p50", all(|it| it.p50_ms), "etcd", Aim::Told);
        let p99 = all(|it| it.p99_ms);
        book.beside(9, &case, "ms, p99", p99, "etcd", Aim::AtMost(100.0));
        book.beside(9, &case, "changes made, per s", all(|it| it.per_s), "etcd", Aim::Told);
        let lost = all(|it| it.lost as f64);
        book.beside(9, &case, "news that did not come", lost, "etcd", Aim::AtMost(0.0));
    }
    Ok(())
}

/// What watchers saw.
struct Watched {
    p50_ms: f64,
    p99_ms: f64,
    /// Changes that were made, per second.
    per_s: f64,
    /// How many changes did not come to how many watchers.
    lost: u64,
}

/// Somebody who watches.
#[async_trait]
trait Follow: Send {
    /// When what came now was asked for, microseconds since the row began; nothing of what nobody asked for here.
    async fn next(&mut self) -> Result<Vec<u64>>;
}

async fn watched(
    follow: Vec<Box<dyn Follow>>,
    askers: Askers,
    changes: u32,
    field: &Field,
    begun: Instant,
) -> Result<Watched> {
    let expected = Arc::new(AtomicU64::new(u64::MAX));
    let watchers = follow.len() as u64;
    let mut watching = JoinSet::new();
    for mut one in follow {
        let expected = expected.clone();
        watching.spawn(async move {
            let (mut times, mut seen) = (histogram()?, 0);
            let mut end = None;
            loop {
                if seen >= expected.load(Ordering::Relaxed) {
                    return anyhow::Ok((times, seen));
                }
                // Nobody says that the last change was made, so it looks from time to time.
                let came = tokio::time::timeout(Duration::from_millis(500), one.next()).await;
                for asked_us in came.unwrap_or_else(|_| Ok(Vec::new()))? {
                    let late_us = micros(begun).saturating_sub(asked_us);
                    times.saturating_record(late_us.max(1));
                    seen += 1;
                }
                if expected.load(Ordering::Relaxed) < u64::MAX {
                    let end = end.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if Instant::now() > *end {
                        return Ok((times, seen));
                    }
                }
            }
        });
    }
    let paced = pace(askers, changes, field.extent.lasting.counted).await?;
    let made = paced.asked;
    expected.store(made, Ordering::Relaxed);
    let (mut times, mut seen) = (histogram()?, 0);
    while let Some(one) = watching.join_next().await {
        let (of_one, count) = one.context("a watcher panicked")??;
        times.add(of_one)?;
        seen += count;
        ensure!(count <= made, "a watcher heard of {count} changes, and there were {made}");
    }
    let millis = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    let (p50_ms, p99_ms) = (millis(0.5), millis(0.99));
    Ok(Watched { p50_ms, p99_ms, per_s: paced.per_s, lost: made * watchers - seen })
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Changes a VM's label to the time.
struct Change {
    maker: Maker,
    vm: String,
    begun: Instant,
}

#[async_trait]
impl Asker for Change {
    async fn ask(&mut self) -> Result<()> {
        update(&self.maker, &self.vm, micros(self.begun)).await
    }
}

/// Puts the time.
struct Stamp {
    put: Put,
    begun: Instant,
}

/// Keys that are watched.
const PREFIX: &str = "watched-";
/// The end of their range.
const PREFIX_END: &str = "watched.";

#[async_trait]
impl Asker for Stamp {
    async fn ask(&mut self) -> Result<()> {
        let key = format!("{PREFIX}{}", fastrand::usize(..CHANGERS));
        self.put.put_stamped(key, micros(self.begun)).await
    }
}

struct Ours(client::Watch);

impl Ours {
    fn begin(client: &Client, since_revision: u64) -> Ours {
        let kinds = vec!["vm".to_owned()];
        Ours(client.watch(v1::WatchRequest { since_revision, kinds, ..Default::default() }))
    }
}

#[async_trait]
impl Follow for Ours {
    async fn next(&mut self) -> Result<Vec<u64>> {
        let event = self.0.next().await?;
        let labels = event.changes.iter().filter_map(|change| {
            let vm = change.vm.as_ref().filter(|vm| vm.name.starts_with(PREFIX))?;
            vm.spec.as_ref()?.labels.get("turn")?.parse().ok()
        });
        // As they are made.
        Ok(labels.filter(|asked_us| *asked_us > 0).collect())
    }
}

struct Etcd(Streaming<api::WatchResponse>);

impl Etcd {
    async fn begin(channel: Channel) -> Result<Etcd> {
        let create = WatchCreateRequest { key: PREFIX.into(), range_end: PREFIX_END.into() };
        let asked = api::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests must not end: the watch would.
        let requests = futures_util::StreamExt::chain(
            futures_util::stream::iter([asked]),
            futures_util::stream::pending(),
        );
        let stream = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let mut stream = { stream }.watch(requests).await?.into_inner();
        let created = stream.message().await?.is_some_and(|it| it.created);
        ensure!(created, "etcd does not begin a watch");
        Ok(Etcd(stream))
    }
}

#[async_trait]
impl Follow for Etcd {
    async fn next(&mut self) -> Result<Vec<u64>> {
        let response = self.0.message().await?.context("etcd ended a watch")?;
        let values = response.events.into_iter().filter_map(|event| {
            let value = event.kv?.value;
            Some(u64::from_le_bytes(*value.first_chunk()?))
        });
        Ok(values.collect())
    }
}

//! Watchers, one of each node: what they are sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use client::{
    Client, Error,
    v1::{self, events_client::EventsClient},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::Load;

pub(crate) const MODEL: &str = "watch";

/// What comes within this time is one line of the history.
const BATCH: Duration = Duration::from_secs(1);
/// Before it is tried again what failed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a watcher that is to end may still be behind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watchers, and up to where they are to watch; 0 while nobody knows.
pub(crate) struct Watchers {
    tasks: JoinSet<Option<String>>,
    until: Arc<AtomicU64>,
}

impl Watchers {
    /// One of each node, from this revision on.
    pub(crate) fn begin(load: &Load, since: u64) -> Watchers {
        let until = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for node in 0..load.nodes() {
            tasks.spawn(watch(load.clone(), node, since, until.clone()));
        }
        Watchers { tasks, until }
    }

    /// Waits until all have come to this revision; who does not is named.
    pub(crate) async fn end(mut self, at: u64) -> Vec<String> {
        self.until.store(at, Ordering::Relaxed);
        let mut behind = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            behind.extend(ended.unwrap_or_else(|error| Some(format!("a watcher: {error}"))));
        }
        behind
    }
}

async fn watch(load: Load, node: usize, since: u64, until: Arc<AtomicU64>) -> Option<String> {
    let (key, client) = (format!("n{}", node + 1), load.node(node));
    let mut process = load.history.process(MODEL);
    process.invoke("begin", &key, Value::Null).ok(json!({ "since": since }));
    let (mut last, mut batch, mut batched) = (since, Vec::<Value>::new(), Instant::now());
    let mut sent = follow(client.clone(), since);
    let mut deadline = None;
    loop {
        let mut gap = None;
        match tokio::time::timeout(BATCH, sent.recv()).await {
            Ok(Some(event)) => {
                last = event.revision;
                let objects: Vec<String> =
                    event.changes.into_iter().map(|change| change.object).collect();
                batch.push(json!([event.revision, objects]));
            }
            // What comes next is gone.
            Ok(None) => match newest(client).await {
                Ok(now) => gap = Some(now),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Err(_) => {}
        }
        let until = until.load(Ordering::Relaxed);
        let arrived = until > 0 && last >= until;
        if (batched.elapsed() > BATCH || arrived || gap.is_some()) && !batch.is_empty() {
            let sent = Value::Array(std::mem::take(&mut batch));
            process.invoke("events", &key, Value::Null).ok(sent);
            batched = Instant::now();
        }
        if let Some(now) = gap {
            let told = json!({ "after": last, "to": now });
            process.invoke("gap", &key, Value::Null).ok(told);
            last = now;
            sent = follow(client.clone(), now);
        }
        if arrived {
            return None;
        }
        if until > 0 && Instant::now() > *deadline.get_or_insert(Instant::now() + PATIENCE) {
            return Some(format!("{key} was sent {last}, and not {until} within {PATIENCE:?}"));
        }
    }
}

/// What a watcher is sent, until it is told that what comes next is gone. It ends when nobody listens.
fn follow(client: Client, since: u64) -> mpsc::Receiver<v1::Event> {
    let (send, sent) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut watch = client.watch(request(since));
        loop {
            match watch.next().await {
                Ok(event) => {
                    if send.send(event).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.code() == Some(client::Code::OutOfRange) => return,
                Err(_) if send.is_closed() => return,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    });
    sent
}

fn request(since: u64) -> v1::WatchRequest {
    v1::WatchRequest {
        since_revision: since,
        kinds: vec!["vm".to_owned(), "lock".to_owned()],
        project: String::new(),
    }
}

async fn newest(client: &Client) -> Result<u64, Error> {
    let request = v1::ListEventsRequest { since_revision: 0, limit: 1 };
    let listed = client.call(request, async |channel, request| {
        EventsClient::new(channel).list_events(request).await
    });
    Ok(listed.await?.revision)
}

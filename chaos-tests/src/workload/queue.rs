//! Operations: hosts' drivers are asked whether they answer, through the queues of two classes. Some requests are
//! sent once more when they have been answered. In the end every operation that there is is looked at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use client::{
    Client, Error,
    v1::{self, operations_client::OperationsClient},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Load, think};
use crate::history::Process;

pub(crate) const MODEL: &str = "queue";

const CLASSES: [&str; 2] = ["monitoring-alerts", "cost-analysis"];
/// Of a page.
const PAGE: u32 = 500;
/// How long operations may take to end when nothing more befalls the cluster.
const SETTLE: Duration = Duration::from_secs(90);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(1);

/// Those who ask.
#[derive(Default)]
pub(crate) struct Queue {
    begun: AtomicU64,
}

impl Queue {
    /// So many clients have drivers asked until the load is over.
    pub(crate) fn fill(self: &Arc<Queue>, load: &Load, clients: u64, seed: u64) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for number in 0..clients {
            let (queue, load) = (self.clone(), load.clone());
            let mut random = fastrand::Rng::with_seed(seed ^ (number << 32));
            all.spawn(async move {
                let mut process = load.history.process(MODEL);
                while !load.is_over() {
                    think(&mut random, 500..4_000).await;
                    let name = format!("q{}", queue.begun.fetch_add(1, Ordering::Relaxed));
                    ask(&load, &mut process, &name, &mut random).await;
                }
            });
        }
        all
    }
}

async fn ask(load: &Load, process: &mut Process, name: &str, random: &mut fastrand::Rng) {
    let client = load.to_change(random);
    // What is not even sent needs no line.
    let Ok(Some(mutation)) = client.mutation().await else { return };
    let class = CLASSES[random.usize(..CLASSES.len())].to_owned();
    let call = process.invoke("probe", name, json!({ "class": class }));
    let request = v1::ProbeHostsRequest { mutation: Some(mutation), hosts: Vec::new(), class };
    let answer = send(client, request.clone()).await;
    let told = |done: &v1::Outcome| json!({ "operation": done.operation, "etag": done.revision });
    call.hear(&answer, told);
    if let Ok(done) = answer
        && random.u8(..100) < 20
    {
        let call = process.invoke("again", name, json!({ "etag": done.revision }));
        call.hear(&send(load.to_change(random), request).await, told);
    }
}

async fn send(client: &Client, request: v1::ProbeHostsRequest) -> Result<v1::Outcome, Error> {
    let sent = client.call(request, async |channel, request| {
        OperationsClient::new(channel).probe_hosts(request).await
    });
    sent.await
}

/// Looks at all operations that there are, of every kind, when nothing more is about to happen to them: it belongs to
/// the history.
///
/// # Errors
/// That they cannot be listed.
pub(crate) async fn look(load: &Load) -> Result<(), Error> {
    let begun = Instant::now();
    let all = loop {
        let all = list(&load.patient).await?;
        let rests = |it: &v1::Operation| it.done || it.status == "stuck";
        if all.iter().all(rests) || begun.elapsed() > SETTLE {
            break all;
        }
        tokio::time::sleep(LOOK).await;
    };
    let mut process = load.history.process(MODEL);
    for operation in all {
        let call = process.invoke("found", &operation.id, Value::Null);
        call.ok(json!({
            "kind": operation.kind,
            "is_part": !operation.parent.is_empty(),
            "status": operation.status,
            "done": operation.done,
            "message": operation.message,
        }));
    }
    Ok(())
}

async fn list(client: &Client) -> Result<Vec<v1::Operation>, Error> {
    let (mut all, mut page) = (Vec::new(), v1::Page { page_size: PAGE, ..Default::default() });
    loop {
        let request = v1::ListOperationsRequest { page: Some(page.clone()), freshness: None };
        let listed = client
            .call(request, async |channel, request| {
                OperationsClient::new(channel).list_operations(request).await
            })
            .await?;
        all.extend(listed.operations);
        if listed.next_page_token.is_empty() {
            return Ok(all);
        }
        page.page_token = listed.next_page_token;
    }
}

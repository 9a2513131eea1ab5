//! Counters that count up, each with one writer. What was acknowledged must be there, and nothing
//! may be there that was not written.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use client::{
    Client, Error,
    v1::{self, images_client::ImagesClient, vms_client::VmsClient},
};
use tokio::task::JoinSet;

const IMAGE: &str = "none";
/// The label of a VM that holds its count.
const LABEL: &str = "value";

#[derive(Debug)]
struct Counter {
    vm: String,
    attempted: AtomicU64,
    acknowledged: AtomicU64,
}

/// Counters of one cluster: labels of VMs that never start.
#[derive(Debug)]
pub struct Counters(Vec<Arc<Counter>>);

/// A counter that does not hold what it must.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// The VM.
    pub vm: String,
    /// What it holds; `None` when it is gone.
    pub value: Option<u64>,
    /// The last value that was acknowledged or seen.
    pub acknowledged: u64,
    /// The last value that was written, acknowledged or not.
    pub attempted: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { vm, value, acknowledged, attempted } = self;
        write!(f, "{vm} holds {value:?}; acknowledged was {acknowledged}, attempted {attempted}")
    }
}

/// Running writers; they end when dropped.
#[derive(Debug)]
pub struct Writers(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

impl Counters {
    /// Makes counters in a new cluster.
    ///
    /// # Errors
    /// What the cluster answered.
    pub async fn make(client: &Client, count: usize) -> Result<Counters, Error> {
        let image = v1::CreateImageRequest {
            mutation: client.mutation().await?,
            name: IMAGE.to_owned(),
            ..Default::default()
        };
        let made = client.call(image, async |channel, request| {
            ImagesClient::new(channel).create_image(request).await
        });
        client.note(made.await?.revision);
        let mut counters = Vec::new();
        for number in 0..count {
            let vm = format!("counter-{number}");
            let request = v1::CreateVmRequest {
                mutation: client.mutation().await?,
                name: vm.clone(),
                spec: Some(spec(0)),
                stopped: true,
                ..Default::default()
            };
            let made = client.call(request, async |channel, request| {
                VmsClient::new(channel).create_vm(request).await
            });
            client.note(made.await?.revision);
            let (attempted, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
            counters.push(Arc::new(Counter { vm, attempted, acknowledged }));
        }
        Ok(Counters(counters))
    }

    /// Writes to all of them at once until the answer is dropped.
    #[must_use]
    pub fn write(&self, client: &Client) -> Writers {
        let mut writers = JoinSet::new();
        for counter in &self.0 {
            writers.spawn(count_up(client.clone(), counter.clone()));
        }
        Writers(writers)
    }

    /// The values that were acknowledged, added up: how many writes are known to have been done.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.iter().map(|counter| counter.acknowledged.load(Ordering::SeqCst)).sum()
    }

    /// Looks whether each holds what it must. What is seen must not be lost later either.
    ///
    /// # Errors
    /// What the cluster answered, or in the inner result the counters that do not.
    pub async fn check(&self, client: &Client) -> Result<Result<(), Vec<Lost>>, Error> {
        let mut all = Vec::new();
        for counter in &self.0 {
            let request = v1::GetVmRequest { vm: counter.vm.clone(), ..Default::default() };
            let got = client.call(request, async |channel, request| {
                VmsClient::new(channel).get_vm(request).await
            });
            let value = match got.await {
                Ok(vm) => vm.spec.and_then(|spec| spec.labels.get(LABEL)?.parse().ok()),
                Err(error) if error.reason() == "NOT_FOUND" => None,
                Err(error) => return Err(error),
            };
            all.extend(counter.check(value));
        }
        Ok(if all.is_empty() { Ok(()) } else { Err(all) })
    }
}

impl Counter {
    fn check(&self, value: Option<u64>) -> Option<Lost> {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let attempted = self.attempted.load(Ordering::SeqCst);
        match value {
            Some(seen) if (acknowledged..=attempted).contains(&seen) => {
                self.acknowledged.store(seen, Ordering::SeqCst);
                None
            }
            _ => Some(Lost { vm: self.vm.clone(), value, acknowledged, attempted }),
        }
    }
}

fn spec(value: u64) -> v1::VmSpec {
    v1::VmSpec {
        vcpus: 1,
        memory_mib: 16,
        image: IMAGE.to_owned(),
        labels: [(LABEL.to_owned(), value.to_string())].into(),
        ..Default::default()
    }
}

async fn count_up(client: Client, counter: Arc<Counter>) {
    loop {
        let Ok(mutation) = client.mutation().await else { continue };
        let value = counter.attempted.load(Ordering::SeqCst) + 1;
        counter.attempted.store(value, Ordering::SeqCst);
        let request = v1::UpdateVmRequest {
            mutation,
            vm: counter.vm.clone(),
            spec: Some(spec(value)),
            ..Default::default()
        };
        let done = client.call(request, async |channel, request| {
            VmsClient::new(channel).update_vm(request).await
        });
        // Without an answer it may have been done or not.
        if done.await.is_ok() {
            counter.acknowledged.store(value, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_there() {
        for (acknowledged, attempted, value, good) in [
            (4, 6, Some(4), true),
            (4, 6, Some(6), true),
            (4, 6, Some(3), false),
            (4, 6, Some(7), false),
            (4, 6, None, false),
        ] {
            let (attempted, acknowledged) =
                (AtomicU64::new(attempted), AtomicU64::new(acknowledged));
            let counter = Counter { vm: "counter-0".to_owned(), attempted, acknowledged };
            assert_eq!(counter.check(value).is_none(), good, "{counter:?} {value:?}");
        }
    }
}

//! Row 1: acknowledged changes, each synced on a majority's disks before it is answered.

use anyhow::Result;
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, locks_client::LocksClient, vms_client::VmsClient},
};
use tonic::transport::Channel;

use crate::{
    api::{PutRequest, kv_client::KvClient},
    book::Book,
    field::Field,
    load::{Asker, Askers},
    ours::IMAGE,
};

/// How many times etcd's it is to be, with so many clients at a time.
const AIMS: [(usize, f64); 4] = [(1, 1.0), (16, 1.3), (64, 1.5), (256, 1.5)];

/// Measures the row.
pub(crate) async fn measure(field: &Field, book: &mut Book) -> Result<()> {
    for kind in ["lock", "label", "create"] {
        for clients in &field.extent.clients {
            let ours = async |round: usize| {
                let mut askers: Askers = Vec::new();
                for (number, client) in field.clients(*clients).await?.into_iter().enumerate() {
                    let name = format!("{kind}-{clients}-{round}-{number}");
                    askers.push(match kind {
                        "lock" => Box::new(Lock::named(client, &name)),
                        "label" => Box::new(Label::new(client, name).await?),
                        _ => Box::new(Create::new(client, name)),
                    });
                }
                Ok(askers)
            };
            let etcd = async || {
                let channels = field.channels(*clients).await?.into_iter();
                Ok(channels.map(|channel| Box::new(Put::new(channel)) as _).collect())
            };
            let both = field.drive_both(ours, etcd).await?;
            let aim = AIMS.iter().find(|(of, _)| of >= clients).map_or(1.0, |(_, aim)| *aim);
            both.write(book, 1, &format!("{kind}, {clients} clients"), aim)?;
        }
    }
    Ok(())
}

/// Bytes of a value that is put: about as many as a change of ours takes in the log.
const VALUE_BYTES: usize = 256;
/// Keys that are put, in turn.
const KEYS: usize = 10_000;
/// How long a lock is held at most.
const TTL_MS: u64 = 3_600_000;

/// Puts values into etcd.
pub(crate) struct Put {
    channel: KvClient<Channel>,
    value: Vec<u8>,
}

impl Put {
    pub(crate) fn new(channel: Channel) -> Put {
        Put { channel: KvClient::new(channel), value: vec![b'x'; VALUE_BYTES] }
    }

    /// Puts one value.
    pub(crate) async fn put(&mut self, key: String) -> Result<()> {
        let (key, value) = (key.into_bytes(), self.value.clone());
        self.channel.put(PutRequest { key, value }).await?;
        Ok(())
    }
}

#[async_trait]
impl Asker for Put {
    async fn ask(&mut self) -> Result<()> {
        self.put(format!("key-{:05}", fastrand::usize(..KEYS))).await
    }
}

/// Takes a lock of its own and gives it back, in turn.
pub(crate) struct Lock {
    client: Client,
    lock: String,
    fence: Option<u64>,
}

impl Lock {
    pub(crate) fn named(client: Client, lock: &str) -> Lock {
        Lock { client, lock: lock.to_owned(), fence: None }
    }
}

#[async_trait]
impl Asker for Lock {
    async fn ask(&mut self) -> Result<()> {
        let mutation = self.client.mutation().await?;
        let lock = self.lock.clone();
        let Some(fence) = self.fence else {
            let request = v1::AcquireLockRequest {
                mutation,
                lock,
                owner: "benchmark".to_owned(),
                ttl_ms: TTL_MS,
                ..Default::default()
            };
            let call =
                async |channel, request| LocksClient::new(channel).acquire_lock(request).await;
            let granted = self.client.call(request, call).await?;
            self.fence = Some(granted.fence);
            return Ok(());
        };
        let request = v1::HeldLockRequest { mutation, lock, fence, ..Default::default() };
        let call = async |channel, request| LocksClient::new(channel).release_lock(request).await;
        self.client.call(request, call).await?;
        // Not before: what is not known to be given back may still be held.
        self.fence = None;
        Ok(())
    }
}

/// A small VM; only the cluster's state is to be measured.
pub(crate) fn spec(label: u64) -> v1::VmSpec {
    v1::VmSpec {
        vcpus: 1,
        memory_mib: 16,
        image: IMAGE.to_owned(),
        labels: [("turn".to_owned(), label.to_string())].into(),
        ..Default::default()
    }
}

/// Changes a label of a VM of its own.
pub(crate) struct Label {
    client: Client,
    vm: String,
    turn: u64,
}

impl Label {
    /// Makes the VM first.
    pub(crate) async fn new(client: Client, vm: String) -> Result<Label> {
        create(&client, &vm, true).await?;
        Ok(Label { client, vm, turn: 0 })
    }
}

#[async_trait]
impl Asker for Label {
    async fn ask(&mut self) -> Result<()> {
        self.turn += 1;
        let request = v1::UpdateVmRequest {
            mutation: self.client.mutation().await?,
            vm: self.vm.clone(),
            spec: Some(spec(self.turn)),
            ..Default::default()
        };
        let call = async |channel, request| VmsClient::new(channel).update_vm(request).await;
        self.client.call(request, call).await?;
        Ok(())
    }
}

/// Makes VMs.
pub(crate) struct Create {
    client: Client,
    prefix: String,
    made: u64,
}

impl Create {
    pub(crate) fn new(client: Client, prefix: String) -> Create {
        Create { client, prefix, made: 0 }
    }
}

#[async_trait]
impl Asker for Create {
    async fn ask(&mut self) -> Result<()> {
        self.made += 1;
        create(&self.client, &format!("{}-{}", self.prefix, self.made), true).await
    }
}

/// Makes a VM.
pub(crate) async fn create(client: &Client, name: &str, stopped: bool) -> Result<()> {
    let request = v1::CreateVmRequest {
        mutation: client.mutation().await?,
        name: name.to_owned(),
        spec: Some(spec(0)),
        stopped,
        ..Default::default()
    };
    let call = async |channel, request| VmsClient::new(channel).create_vm(request).await;
    client.call(request, call).await?;
    Ok(())
}

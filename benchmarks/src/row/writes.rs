//! Rows 1 and 2: acknowledged changes, each synced on a majority's disks before it is answered; each as a call, and over
//! streams.

use std::path::Path;

use anyhow::{Result, bail};
use async_trait::async_trait;
use client::{
    Changes, Client,
    v1::{
        self, locks_client::LocksClient, make_changes_request::Change,
        make_changes_response::Answer, vms_client::VmsClient,
    },
};
use tonic::transport::Channel;

use crate::{
    api::{PutRequest, kv_client::KvClient},
    book::Book,
    field::{Extent, Field},
    load::{Asker, Askers},
    ours::IMAGE,
    row::lists::PATIENCE,
};

/// How many times etcd's it is to be, with so many clients at a time.
const AIMS: [(usize, f64); 4] = [(1, 1.0), (16, 1.3), (64, 1.5), (256, 1.5)];
/// The same, over streams.
const STREAMED: f64 = 5.0;
/// Over how many streams changes come.
const STREAMS: usize = 8;

/// Measures row 1.
pub(crate) async fn measure(programs: &Path, extent: &Extent, book: &mut Book) -> Result<()> {
    let field = Field::start(programs.to_owned(), extent.clone()).await?;
    for kind in ["lock", "label"] {
        for clients in &extent.clients {
            measure_calls(&field, kind, *clients, book).await?;
        }
    }
    drop(field);
    for clients in &extent.clients {
        // Those before have left VMs; a cluster and its hosts have room for so many.
        let field = Field::start(programs.to_owned(), extent.clone()).await?;
        measure_calls(&field, "create", *clients, book).await?;
    }
    Ok(())
}

async fn measure_calls(field: &Field, kind: &str, clients: usize, book: &mut Book) -> Result<()> {
    let aim = AIMS.iter().find(|(of, _)| *of >= clients).map_or(1.0, |(_, aim)| *aim);
    let ours = async |round: usize| {
        let makers = field.clients(clients).await?.into_iter().map(Maker::calls);
        askers(kind, &format!("{kind}-{clients}-{round}"), makers).await
    };
    let both = field.drive_both(ours, async || puts(field, clients).await).await?;
    both.write(book, 1, &format!("{kind}, {clients} clients"), aim)
}

/// Measures row 2: many clients whose changes go over few streams, beside as many whose values are puts of their own.
pub(crate) async fn measure_streams(field: &mut Field, book: &mut Book) -> Result<()> {
    let clients = field.extent.clients.iter().copied().max().unwrap_or(1);
    for kind in ["lock", "label", "create"] {
        if kind == "create" {
            // As many as may wait for their hosts, and a cluster may have.
            field.extent.lasting = field.extent.lasting.divided(3);
        }
        let field = &*field;
        let ours = async |round: usize| {
            field.ours.settled(PATIENCE).await?;
            let streams = field.ours.clients(STREAMS.min(clients)).await?;
            let streams: Vec<Maker> = streams.into_iter().map(Maker::stream).collect();
            let makers = streams.into_iter().cycle().take(clients);
            askers(kind, &format!("{kind}-streamed-{round}"), makers).await
        };
        let both = field.drive_both(ours, async || puts(field, clients).await).await?;
        both.write(book, 2, &format!("{kind}, {clients} at a time"), STREAMED)?;
    }
    Ok(())
}

async fn askers(kind: &str, prefix: &str, makers: impl Iterator<Item = Maker>) -> Result<Askers> {
    let mut askers: Askers = Vec::new();
    for (number, maker) in makers.enumerate() {
        let name = format!("{prefix}-{number}");
        askers.push(match kind {
            "lock" => Box::new(Lock::named(maker, &name)),
            "label" => Box::new(Label::new(maker, name).await?),
            _ => Box::new(Create::new(maker, name)),
        });
    }
    Ok(askers)
}

async fn puts(field: &Field, clients: usize) -> Result<Askers> {
    let channels = field.channels(clients).await?.into_iter();
    Ok(channels.map(|channel| Box::new(Put::new(channel)) as _).collect())
}

/// Has changes made: each by a call, or over a stream.
#[derive(Clone)]
pub(crate) struct Maker {
    client: Client,
    stream: Option<Changes>,
}

impl Maker {
    pub(crate) fn calls(client: Client) -> Maker {
        Maker { client, stream: None }
    }

    pub(crate) fn stream(client: Client) -> Maker {
        Maker { stream: Some(client.changes()), client }
    }

    async fn mutation(&self) -> Result<Option<v1::Mutation>> {
        Ok(self.client.mutation().await?)
    }

    async fn make(&self, change: Change) -> Result<Answer> {
        if let Some(stream) = &self.stream {
            return Ok(stream.make(change).await?);
        }
        macro_rules! call {
            ($client:path, $method:ident, $message:expr) => {{
                let call = async |channel, request| <$client>::new(channel).$method(request).await;
                self.client.call($message, call).await?
            }};
        }
        Ok(match change {
            Change::CreateVm(asked) => Answer::Outcome(call!(VmsClient<_>, create_vm, asked)),
            Change::UpdateVm(asked) => Answer::Outcome(call!(VmsClient<_>, update_vm, asked)),
            Change::AcquireLock(asked) => Answer::Lock(call!(LocksClient<_>, acquire_lock, asked)),
            Change::ReleaseLock(asked) => {
                Answer::Outcome(call!(LocksClient<_>, release_lock, asked))
            }
            Change::DeleteVm(_)
            | Change::StartVm(_)
            | Change::StopVm(_)
            | Change::RebootVm(_)
            | Change::PauseVm(_)
            | Change::ResumeVm(_)
            | Change::MigrateVm(_)
            | Change::RenewLock(_) => bail!("nobody measures it"),
        })
    }
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

    /// Puts a value that begins with a number.
    pub(crate) async fn put_stamped(&mut self, key: String, stamp: u64) -> Result<()> {
        self.value[..8].copy_from_slice(&stamp.to_le_bytes());
        self.put(key).await
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
    maker: Maker,
    lock: String,
    fence: Option<u64>,
}

impl Lock {
    pub(crate) fn named(maker: Maker, lock: &str) -> Lock {
        Lock { maker, lock: lock.to_owned(), fence: None }
    }
}

#[async_trait]
impl Asker for Lock {
    async fn ask(&mut self) -> Result<()> {
        let mutation = self.maker.mutation().await?;
        let lock = self.lock.clone();
        let Some(fence) = self.fence else {
            let asked = v1::AcquireLockRequest {
                mutation,
                lock,
                owner: "benchmark".to_owned(),
                ttl_ms: TTL_MS,
                ..Default::default()
            };
            let Answer::Lock(granted) = self.maker.make(Change::AcquireLock(asked)).await? else {
                bail!("a lock was asked for, and something else answered");
            };
            self.fence = Some(granted.fence);
            return Ok(());
        };
        let held = v1::HeldLockRequest { mutation, lock, fence, ..Default::default() };
        self.maker.make(Change::ReleaseLock(held)).await?;
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
    maker: Maker,
    vm: String,
    turn: u64,
}

impl Label {
    /// Makes the VM first.
    pub(crate) async fn new(maker: Maker, vm: String) -> Result<Label> {
        create(&maker, &vm, true).await?;
        Ok(Label::of(maker, vm))
    }

    /// Of a VM that is there.
    pub(crate) fn of(maker: Maker, vm: String) -> Label {
        Label { maker, vm, turn: 0 }
    }
}

#[async_trait]
impl Asker for Label {
    async fn ask(&mut self) -> Result<()> {
        self.turn += 1;
        update(&self.maker, &self.vm, self.turn).await
    }
}

/// Changes the label of a VM.
pub(crate) async fn update(maker: &Maker, vm: &str, label: u64) -> Result<()> {
    let asked = v1::UpdateVmRequest {
        mutation: maker.mutation().await?,
        vm: vm.to_owned(),
        spec: Some(spec(label)),
        ..Default::default()
    };
    maker.make(Change::UpdateVm(asked)).await?;
    Ok(())
}

/// Makes VMs.
pub(crate) struct Create {
    maker: Maker,
    prefix: String,
    made: u64,
}

impl Create {
    pub(crate) fn new(maker: Maker, prefix: String) -> Create {
        Create { maker, prefix, made: 0 }
    }
}

#[async_trait]
impl Asker for Create {
    async fn ask(&mut self) -> Result<()> {
        self.made += 1;
        create(&self.maker, &format!("{}-{}", self.prefix, self.made), true).await
    }
}

/// Makes a VM.
pub(crate) async fn create(maker: &Maker, name: &str, stopped: bool) -> Result<()> {
    let asked = v1::CreateVmRequest {
        mutation: maker.mutation().await?,
        name: name.to_owned(),
        spec: Some(spec(0)),
        stopped,
        ..Default::default()
    };
    maker.make(Change::CreateVm(asked)).await?;
    Ok(())
}

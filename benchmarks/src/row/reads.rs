//! Row 3: reads that see everything acknowledged before them, and reads of what the node knows.

use anyhow::{Result, ensure};
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, locks_client::LocksClient},
};
use tonic::transport::Channel;

use crate::{
    api::{RangeRequest, kv_client::KvClient},
    book::Book,
    field::Field,
    load::Asker,
    row::writes::{Lock, Maker, Put},
};

/// How many times etcd's linearizable reads are to be, and stale ones.
const AIMS: [(bool, &str, f64); 2] = [(false, "linearizable", 1.5), (true, "stale", 2.0)];

/// Measures the row.
pub(crate) async fn measure(field: &Field, book: &mut Book) -> Result<()> {
    let maker = Maker::calls(field.clients(1).await?.remove(0));
    Lock::named(maker, KEY).ask().await?;
    Put::new(field.channels(1).await?.remove(0)).put(KEY.to_owned()).await?;
    for (stale, name, aim) in AIMS {
        for clients in &field.extent.clients {
            let ours = async |_| {
                let clients = field.clients(*clients).await?.into_iter();
                Ok(clients.map(|client| Box::new(GetLock::new(client, stale)) as _).collect())
            };
            let etcd = async || {
                let channels = field.channels(*clients).await?.into_iter();
                Ok(channels.map(|channel| Box::new(Get::new(channel, stale)) as _).collect())
            };
            let both = field.drive_both(ours, etcd).await?;
            both.write(book, 3, &format!("{name}, {clients} clients"), aim)?;
        }
    }
    Ok(())
}

/// Gets a value from etcd.
pub(crate) struct Get {
    channel: KvClient<Channel>,
    stale: bool,
}

impl Get {
    pub(crate) fn new(channel: Channel, stale: bool) -> Get {
        Get { channel: KvClient::new(channel), stale }
    }
}

/// What is got: it was put before.
pub(crate) const KEY: &str = "read";

#[async_trait]
impl Asker for Get {
    async fn ask(&mut self) -> Result<()> {
        let request =
            RangeRequest { key: KEY.into(), serializable: self.stale, ..Default::default() };
        let answer = self.channel.range(request).await?.into_inner();
        ensure!(!answer.kvs.is_empty(), "there is no {KEY}");
        Ok(())
    }
}

/// Gets a lock.
pub(crate) struct GetLock {
    client: Client,
    stale: bool,
}

impl GetLock {
    pub(crate) fn new(client: Client, stale: bool) -> GetLock {
        GetLock { client, stale }
    }
}

#[async_trait]
impl Asker for GetLock {
    async fn ask(&mut self) -> Result<()> {
        let freshness = v1::Freshness { stale: self.stale, ..Default::default() };
        let request = v1::GetLockRequest {
            lock: KEY.to_owned(),
            freshness: Some(freshness),
            ..Default::default()
        };
        let call = async |channel, request| LocksClient::new(channel).get_lock(request).await;
        self.client.call(request, call).await?;
        Ok(())
    }
}

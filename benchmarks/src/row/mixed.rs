//! Row 4: reads and changes at a fixed rate, for minutes. Each is asked when it is time to, whether or not those before
//! it have been answered: an answer that is late makes those after it late.

use anyhow::Result;
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, vms_client::VmsClient},
};

use crate::{
    book::{Aim, Book},
    field::Field,
    load::{Asker, Askers, pace},
    row::writes::{Maker, update},
};

/// What is asked each second.
const PER_S: u32 = 10_000;
/// Of a hundred, so many are reads.
const READS: u8 = 90;
/// Who ask, in turn.
const ASKERS: usize = 256;

/// Measures the row, on the VMs that were made for the lists.
pub(crate) async fn measure(field: &Field, book: &mut Book) -> Result<()> {
    let extent = &field.extent;
    field.etcd.pause()?;
    let clients = field.clients(ASKERS).await?.into_iter();
    let vms = extent.vms;
    let mixed = |client: Client| Mixed { maker: Maker::calls(client.clone()), client, vms };
    let askers: Askers = clients.map(|client| Box::new(mixed(client)) as _).collect();
    let seen = pace(askers, PER_S, extent.mixed).await?;
    field.etcd.resume(field.extent.settle).await?;
    let case = format!("{PER_S} a second, {READS} % reads, of {vms} VMs");
    let held = Aim::AtLeast(f64::from(PER_S) * 0.99);
    book.alone(4, &case, "per s", vec![seen.per_s], held);
    book.alone(4, &case, "ms, p50", vec![seen.p50_ms], Aim::Told);
    book.alone(4, &case, "ms, p95", vec![seen.p95_ms], Aim::AtMost(20.0));
    book.alone(4, &case, "ms, p99", vec![seen.p99_ms], Aim::AtMost(100.0));
    Ok(())
}

/// Reads a VM, or changes its label.
struct Mixed {
    client: Client,
    maker: Maker,
    vms: usize,
}

#[async_trait]
impl Asker for Mixed {
    async fn ask(&mut self) -> Result<()> {
        let vm = format!("listed-{}", fastrand::usize(..self.vms));
        if fastrand::u8(..100) >= READS {
            return update(&self.maker, &vm, fastrand::u64(..)).await;
        }
        let request = v1::GetVmRequest { vm, ..Default::default() };
        let call = async |channel, request| VmsClient::new(channel).get_vm(request).await;
        self.client.call(request, call).await?;
        Ok(())
    }
}

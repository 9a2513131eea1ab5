//! Row 5: lists of VMs: the first page with a filter, and all of it.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use client::{
    Client,
    v1::{self, vms_client::VmsClient},
};

use crate::{
    book::{Aim, Book},
    field::Field,
    ours::Ours,
    row::writes::{Maker, create},
};

/// Pages that are asked for.
const PAGES: usize = 200;
/// VMs that are made at a time.
pub(crate) const MAKERS: usize = 64;
/// Until what was asked for is so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Measures the row; the VMs stay for those after it.
pub(crate) async fn measure(field: &Field, book: &mut Book) -> Result<()> {
    let vms = field.extent.vms;
    make(&field.clients(MAKERS).await?, 0..vms, true).await?;
    field.ours.settled(PATIENCE).await?;
    let (p95, whole) = times(&field.ours, vms, field.extent.rounds).await?;
    book.alone(5, &format!("first page of {vms} VMs"), "ms, p95", vec![p95], Aim::AtMost(5.0));
    book.alone(5, &format!("all of {vms} VMs"), "ms", whole, Aim::AtMost(100.0));
    Ok(())
}

/// How long the first page of 100 with a filter takes, all but one in twenty, and the whole list each time,
/// milliseconds.
pub(crate) async fn times(ours: &Ours, vms: usize, rounds: usize) -> Result<(f64, Vec<f64>)> {
    let client = ours.clients(1).await?.remove(0);
    let mut pages = Vec::new();
    for _ in 0..PAGES {
        let asked = Instant::now();
        let page = v1::Page {
            page_size: 100,
            filter: "labels.turn=0 AND name:listed".to_owned(),
            ..Default::default()
        };
        let listed = list(&client, page).await?;
        ensure!(listed.vms.len() == 100.min(vms), "a page has {} VMs", listed.vms.len());
        pages.push(asked.elapsed().as_secs_f64() * 1_000.0);
    }
    pages.sort_by(f64::total_cmp);
    let p95 = pages[pages.len() * 95 / 100];
    let mut whole = Vec::new();
    for _ in 0..rounds {
        let asked = Instant::now();
        let mut page = v1::Page { page_size: 1_000, ..Default::default() };
        let mut seen = 0;
        loop {
            let listed = list(&client, page.clone()).await?;
            seen += listed.vms.len();
            page.page_token = listed.next_page_token;
            if page.page_token.is_empty() {
                break;
            }
        }
        ensure!(seen >= vms, "the list has {seen} VMs");
        whole.push(asked.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok((p95, whole))
}

/// Makes VMs with these numbers, each client its part.
pub(crate) async fn make(clients: &[Client], vms: Range<usize>, stopped: bool) -> Result<()> {
    let mut makers = tokio::task::JoinSet::new();
    let step = clients.len();
    for (number, client) in clients.iter().cloned().enumerate() {
        let (maker, vms) = (Maker::calls(client), vms.clone());
        makers.spawn(async move {
            for vm in vms.skip(number).step_by(step) {
                create(&maker, &format!("listed-{vm}"), stopped).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

pub(crate) async fn list(client: &Client, page: v1::Page) -> Result<v1::ListVmsResponse> {
    let request = v1::ListVmsRequest { page: Some(page), ..Default::default() };
    let call = async |channel, request| {
        VmsClient::new(channel).max_decoding_message_size(64 << 20).list_vms(request).await
    };
    Ok(client.call(request, call).await?)
}

//! What somebody who helps wants to see, in one file: what the doctor finds, the configuration, what the cluster says
//! of itself, metrics, the journal. Secrets are taken out before anything is written, and the file names what is in
//! it: it is looked through before it is sent.

mod redact;

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use anyhow::{Context, Result};
use cli::{Common, Finding};
use client::{Client, v1};
use serde::Serialize;
use v1::{
    clusters_client::ClustersClient, events_client::EventsClient, hosts_client::HostsClient,
    images_client::ImagesClient, operations_client::OperationsClient,
    settings_client::SettingsClient, vms_client::VmsClient,
};

use crate::config::problems;
use redact::redacted;

/// Events that are taken along, the newest.
const EVENTS: u32 = 1_000;
/// VMs, operations, hosts and images that are taken along, of each.
const ROWS: u32 = 1_000;
/// Lines of the journal.
const LINES: &str = "20000";
const ZSTD_LEVEL: i32 = 9;

/// One file of a bundle.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name in the bundle.
    pub name: String,
    /// What is in it, without secrets.
    pub text: String,
}

impl Part {
    fn new(name: &str, text: &str) -> Part {
        Part { name: name.to_owned(), text: redacted(text) }
    }

    fn json(name: &str, value: &impl Serialize) -> Part {
        let value = serde_json::to_value(value).map(redact::without_secrets);
        let text = value.and_then(|value| serde_json::to_string_pretty(&value));
        let text = text.unwrap_or_else(|error| error.to_string());
        Part { name: name.to_owned(), text }
    }
}

/// Gathers what can be had. What cannot says why, in its place.
pub async fn gather(file: &Path, common: &Common) -> Vec<Part> {
    let client = common.client().map_err(|error| format!("{error:#}"));
    let findings: Vec<Finding> = crate::doctor::examine(file, client.clone()).await;
    let mut parts = vec![
        Part::new("version.txt", &format!("novacron {}\n", env!("CARGO_PKG_VERSION"))),
        Part::json("doctor.json", &findings),
        Part::new("cluster.toml", &config(file)),
        Part::new("machine.txt", &machine()),
        Part::new("journal.txt", &journal().await),
    ];
    match client {
        Ok(client) => {
            parts.extend(cluster(&client).await);
            for (endpoint, told) in common.metrics(&client).await {
                let text = told.unwrap_or_else(|error| format!("# {error:#}\n"));
                parts
                    .push(Part::new(&format!("metrics/{}.txt", endpoint.replace(':', "_")), &text));
            }
        }
        Err(why) => parts.push(Part::new("cluster.json", &why)),
    }
    parts
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| unread(file, &error))
}

fn unread(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("# {}: {why}\n", file.display())
}

/// The configuration as it is understood: comments are not, and values go by the names of their fields. Of one that
/// is not only the reason is told: nobody knows where in it a secret stands.
fn config(file: &Path) -> String {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return unread(file, &error),
    };
    match toml::from_str::<serde_json::Value>(&text) {
        Ok(value) => toml::to_string_pretty(&redact::without_secrets(value))
            .unwrap_or_else(|error| unread(file, &error)),
        Err(error) => unread(file, &problems::of_toml(&error, &text).trim_start()),
    }
}

/// What the machine is.
fn machine() -> String {
    let files = [
        "/proc/version",
        "/etc/os-release",
        "/proc/meminfo",
        "/proc/loadavg",
        "/proc/mounts",
        "/proc/self/limits",
    ];
    files.map(|file| format!("## {file}\n{}\n", read(Path::new(file)))).concat()
}

/// What systemd has of the node and the guards, newest last.
async fn journal() -> String {
    /// A journal on a broken disk answers late, or never.
    const PATIENCE: Duration = Duration::from_secs(30);
    let asked = tokio::process::Command::new("journalctl")
        .args(["--no-pager", "--output=short-iso-precise", "--lines", LINES])
        .args(["--unit=novacron.service", "--unit=novacron-guard@*.service"])
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(output)) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(Ok(output)) => format!("# journalctl: {}\n", String::from_utf8_lossy(&output.stderr)),
        Ok(Err(error)) => {
            format!("# journalctl: {error}; take the node's standard error along\n")
        }
        Err(_) => format!("# journalctl said nothing for {PATIENCE:?}\n"),
    }
}

macro_rules! ask {
    ($client:expr, $name:literal, $service:ident, $method:ident, $request:expr) => {{
        let asked = $client.call($request, async |channel, request| {
            $service::new(channel).max_decoding_message_size(64 << 20).$method(request).await
        });
        match asked.await {
            Ok(answer) => Part::json($name, &answer),
            Err(error) => Part::new($name, &format!("{error}\n")),
        }
    }};
}

/// What the cluster says of itself.
async fn cluster(client: &Client) -> Vec<Part> {
    let page = || Some(v1::Page { page_size: ROWS, ..Default::default() });
    let events = v1::ListEventsRequest { since_revision: 0, limit: EVENTS };
    let vms = v1::ListVmsRequest { project: "-".to_owned(), page: page(), ..Default::default() };
    let newest = page().map(|page| v1::Page { order_by: "created_at desc".to_owned(), ..page });
    let operations = v1::ListOperationsRequest { page: newest, ..Default::default() };
    let hosts = v1::ListHostsRequest { page: page(), ..Default::default() };
    let images = v1::ListImagesRequest { page: page(), ..Default::default() };
    let status = v1::GetClusterRequest::default();
    let settings = v1::ListSettingsRequest::default();
    vec![
        ask!(client, "cluster.json", ClustersClient, get_cluster, status),
        ask!(client, "settings.json", SettingsClient, list_settings, settings),
        ask!(client, "hosts.json", HostsClient, list_hosts, hosts),
        ask!(client, "images.json", ImagesClient, list_images, images),
        ask!(client, "operations.json", OperationsClient, list_operations, operations),
        ask!(client, "vms.json", VmsClient, list_vms, vms),
        ask!(client, "events.json", EventsClient, list_events, events),
    ]
}

/// Writes a bundle.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn write(parts: &[Part], out: &Path) -> Result<()> {
    let place = || format!("cannot write {}", out.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let file = file.with_context(place)?;
    let packed = zstd::Encoder::new(file, ZSTD_LEVEL).with_context(place)?;
    let mut archive = tar::Builder::new(packed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.clone().unwrap_or(Duration::ZERO).as_secs());
        let name = Path::new("novacron-bundle").join(&part.name);
        archive.append_data(&mut header, name, part.text.as_bytes()).with_context(place)?;
    }
    let mut file = archive.into_inner().and_then(zstd::Encoder::finish).with_context(place)?;
    file.flush().with_context(place)?;
    file.sync_all().with_context(place)
}

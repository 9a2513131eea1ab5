//! Hosts and images.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, hosts_client::HostsClient, images_client::ImagesClient};

use crate::{
    Session, all_pages, call,
    output::{self, Column, at, column, number, wide},
};

/// What may be done with hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum HostVerb {
    /// Show one host.
    Get {
        /// Its name or id.
        name: String,
    },
    /// Show all hosts, or those that pass a filter.
    List {
        /// A filter, such as `status=lost`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
    },
    /// Forget a lost host that has no VMs.
    Remove {
        /// Its name or id.
        name: String,
    },
}

const HOST_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("STATUS", |row| at(row, "status")),
    column("NODE", |row| at(row, "node")),
    column("DRIVER", |row| at(row, "driver")),
    column("VMS", |row| number(row, "vms")),
    column("CPU", |row| share(row, "usedCpuMillicores", "cpuMillicores")),
    column("MEMORY", |row| share(row, "usedMemoryMib", "memoryMib")),
    wide("DISK", |row| share(row, "usedDiskMib", "diskMib")),
    wide("FOREIGN", |row| number(row, "foreign")),
    wide("ID", |row| at(row, "id")),
];

/// Used of all, in percent.
fn share(row: &serde_json::Value, used: &str, whole: &str) -> String {
    let amount = |path: &str| number(row, path).parse::<u64>().unwrap_or(0);
    format!("{} %", amount(used) * 100 / amount(whole).max(1))
}

pub(crate) async fn run_host(session: &Session, verb: HostVerb) -> Result<()> {
    match verb {
        HostVerb::Get { name } => {
            let request = v1::GetHostRequest { host: name, freshness: None };
            let host = call!(session, HostsClient<_>, get_host, request).await?;
            output::row(session.format, &host, HOST_COLUMNS)
        }
        HostVerb::List { selector } => {
            let page = v1::Page { filter: selector, page_size: 1000, ..Default::default() };
            let request = v1::ListHostsRequest { page: Some(page), freshness: None };
            let (hosts, _) = all_pages!(session, HostsClient<_>, list_hosts, request, hosts);
            output::rows(session.format, &hosts, HOST_COLUMNS)
        }
        HostVerb::Remove { name } => {
            let what = format!("host {name} removed");
            let request = v1::RemoveHostRequest { mutation: session.client.mutation(), host: name };
            let outcome = call!(session, HostsClient<_>, remove_host, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

/// What may be done with images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageVerb {
    /// Make an image without bytes known, for simulated hosts.
    Create {
        /// Its name.
        name: String,
    },
    /// Show one image.
    Get {
        /// Its name or id.
        name: String,
    },
    /// Show all images.
    List,
    /// Forget an image that no VM uses.
    Delete {
        /// Its name or id.
        name: String,
    },
}

const IMAGE_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("VMS", |row| number(row, "vms")),
    column("ORIGIN", |row| at(row, "origin")),
    wide("ID", |row| at(row, "id")),
];

pub(crate) async fn run_image(session: &Session, verb: ImageVerb) -> Result<()> {
    match verb {
        ImageVerb::Create { name } => {
            let what = format!("image {name} created");
            let request = v1::CreateImageRequest {
                mutation: session.client.mutation(),
                name,
                files: Vec::new(),
                origin: "no bytes: for simulated hosts".to_owned(),
            };
            let outcome = call!(session, ImagesClient<_>, create_image, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        ImageVerb::Get { name } => {
            let request = v1::GetImageRequest { image: name, freshness: None };
            let image = call!(session, ImagesClient<_>, get_image, request).await?;
            output::row(session.format, &image, IMAGE_COLUMNS)
        }
        ImageVerb::List => {
            let request = v1::ListImagesRequest::default();
            let (images, _) = all_pages!(session, ImagesClient<_>, list_images, request, images);
            output::rows(session.format, &images, IMAGE_COLUMNS)
        }
        ImageVerb::Delete { name } => {
            let what = format!("image {name} deleted");
            let mutation = session.client.mutation();
            let request = v1::DeleteImageRequest { mutation, image: name };
            let outcome = call!(session, ImagesClient<_>, delete_image, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

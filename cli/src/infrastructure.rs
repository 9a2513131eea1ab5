//! Hosts and images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
    /// Say that you have seen a lost host to be off: VMs on it that are being deleted can then go.
    ConfirmDead {
        /// Its name or id.
        name: String,
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
        HostVerb::ConfirmDead { name } => {
            let what = format!("host {name} confirmed dead");
            let mutation = session.client.mutation();
            let request = v1::ConfirmHostDeadRequest { mutation, host: name };
            let outcome = call!(session, HostsClient<_>, confirm_host_dead, request).await?;
            session.settle(&what, Some(outcome)).await
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
    /// Make an image known: a disk, or a kernel with an initrd. The files must lie at the same path
    /// on each host; hosts copy them when they need them and check that they are the same.
    /// Without any file the image is for simulated hosts.
    Create {
        /// Its name.
        name: String,
        /// A disk in qcow2 format.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "kernel", "initrd"])]
        qcow2: Option<PathBuf>,
        /// A disk in raw format.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
        raw: Option<PathBuf>,
        /// A Linux kernel.
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// Its initial file system.
        #[arg(long, value_name = "FILE", requires = "kernel")]
        initrd: Option<PathBuf>,
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

/// A file of an image: where it lies and what is in it.
fn file(part: &str, path: &Path) -> Result<v1::ImageFile> {
    use sha2::Digest;
    let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let read = || -> std::io::Result<(String, u64)> {
        let mut hasher = sha2::Sha256::new();
        let size = std::io::copy(&mut std::fs::File::open(&path)?, &mut hasher)?;
        let digest = hasher.finalize();
        Ok((digest.iter().map(|byte| format!("{byte:02x}")).collect(), size))
    };
    let (sha256, size_bytes) = read().with_context(|| format!("cannot read {}", path.display()))?;
    let source = path.to_string_lossy().into_owned();
    Ok(v1::ImageFile { part: part.to_owned(), sha256, size_bytes, source })
}

const IMAGE_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("VMS", |row| number(row, "vms")),
    column("ORIGIN", |row| at(row, "origin")),
    wide("ID", |row| at(row, "id")),
];

pub(crate) async fn run_image(session: &Session, verb: ImageVerb) -> Result<()> {
    match verb {
        ImageVerb::Create { name, qcow2, raw, kernel, initrd } => {
            let what = format!("image {name} created");
            let parts = [("qcow2", qcow2), ("raw", raw), ("kernel", kernel), ("initrd", initrd)];
            let files = parts.into_iter().filter_map(|(part, path)| Some(file(part, &path?)));
            let files = files.collect::<Result<Vec<_>>>()?;
            let origin = match files.first() {
                Some(file) => file.source.clone(),
                None => "no bytes: for simulated hosts".to_owned(),
            };
            let mutation = session.client.mutation();
            let request = v1::CreateImageRequest { mutation, name, files, origin };
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

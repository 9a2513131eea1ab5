//! Images.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use client::{
    Upload,
    v1::{self, images_client::ImagesClient},
};
use sha2::Digest;

use crate::{
    Session, all_pages, call, download,
    output::{self, Column, at, column, number, wide},
    progress::Transfer,
};

/// What may be done with images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageVerb {
    /// Bring an image into the cluster: a disk, or a kernel with an initrd, from files of this
    /// machine or from URLs. The cluster keeps copies on several nodes and brings them to the hosts
    /// that need them. Without any file the image is for simulated hosts.
    #[command(after_help = "Examples:\n  novacron image create debian --qcow2 debian-12.qcow2\n  \
        novacron image create debian --qcow2 https://example.org/debian-12.qcow2 --sha256 9f86d0…\n  \
        novacron image create tiny --kernel vmlinuz --initrd initrd.cpio")]
    Create(Create),
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

/// What an image is made of.
#[derive(Args, Clone, Debug)]
pub struct Create {
    /// Its name.
    name: String,
    /// A disk in qcow2 format.
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["raw", "kernel", "initrd"])]
    qcow2: Option<String>,
    /// A disk in raw format.
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["kernel", "initrd"])]
    raw: Option<String>,
    /// A Linux kernel.
    #[arg(long, value_name = "FILE|URL")]
    kernel: Option<String>,
    /// Its initial file system.
    #[arg(long, value_name = "FILE|URL", requires = "kernel")]
    initrd: Option<String>,
    /// The SHA-256 that the disk or the kernel must have; needed for a URL without TLS.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("VMS", |row| number(row, "vms")),
    column("SIZE", size),
    column("ORIGIN", |row| at(row, "origin")),
    wide("HELD BY", |row| output::list(row, "holders")),
    wide("ID", |row| at(row, "id")),
];

/// The files' length in all. JSON carries 64-bit numbers as text.
fn size(row: &serde_json::Value) -> String {
    let files = row["files"].as_array().into_iter().flatten();
    let bytes: u64 = files.filter_map(|file| at(file, "sizeBytes").parse::<u64>().ok()).sum();
    indicatif::BinaryBytes(bytes).to_string()
}

/// A file of an image on this machine; one that was downloaded goes when this does.
struct Local {
    part: &'static str,
    upload: Upload,
    _download: Option<tempfile::NamedTempFile>,
}

impl Local {
    async fn get(part: &'static str, from: &str) -> Result<Local> {
        let download = if from.starts_with("http://") || from.starts_with("https://") {
            Some(download::to_file(from).await?)
        } else {
            None
        };
        let path = download.as_ref().map_or(Path::new(from), |file| file.path());
        let path: PathBuf =
            path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        let read = path.clone();
        let measured = tokio::task::spawn_blocking(move || measure(&read)).await?;
        let (sha256, size_bytes) =
            measured.with_context(|| format!("cannot read {}", path.display()))?;
        let upload = Upload { path, sha256, size_bytes };
        Ok(Local { part, upload, _download: download })
    }
}

/// A file's SHA-256 and its length, bytes.
fn measure(path: &Path) -> std::io::Result<(String, u64)> {
    let mut hasher = sha2::Sha256::new();
    let size_bytes = std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    hasher.flush()?;
    let digest = hasher.finalize();
    Ok((digest.iter().map(|byte| format!("{byte:02x}")).collect(), size_bytes))
}

async fn create(session: &Session, asked: Create) -> Result<()> {
    let Create { name, qcow2, raw, kernel, initrd, sha256 } = asked;
    let parts = [("qcow2", qcow2), ("raw", raw), ("kernel", kernel), ("initrd", initrd)];
    let parts: Vec<_> = parts.into_iter().filter_map(|(part, from)| Some((part, from?))).collect();
    let origin = match parts.first() {
        Some((_, from)) => from.clone(),
        None => "no bytes: for simulated hosts".to_owned(),
    };
    let unproved = parts.iter().any(|(_, from)| from.starts_with("http://"));
    if unproved && (sha256.is_none() || parts.len() > 1) {
        bail!(
            "anybody on the way can change what comes without TLS: use https, or a disk and --sha256"
        );
    }
    let mut files = Vec::new();
    for (part, from) in &parts {
        files.push(Local::get(part, from).await?);
    }
    if let (Some(wanted), Some(first)) = (&sha256, files.first()) {
        let found = &first.upload.sha256;
        ensure!(
            found.eq_ignore_ascii_case(wanted),
            "{origin} has the SHA-256 {found}, not {wanted}"
        );
    }
    let holder = if files.is_empty() {
        String::new()
    } else {
        let uploads: Vec<Upload> = files.iter().map(|file| file.upload.clone()).collect();
        let bytes = uploads.iter().map(|upload| upload.size_bytes).sum();
        let transfer = Transfer::start(&format!("image {name} goes to the cluster"), Some(bytes));
        session.client.upload(&uploads, |more| transfer.advance(more)).await?
    };
    let files = files.into_iter().map(|file| v1::ImageFile {
        part: file.part.to_owned(),
        sha256: file.upload.sha256.clone(),
        size_bytes: file.upload.size_bytes,
    });
    let what = format!("image {name} created");
    let (mutation, files) = (session.client.mutation().await?, files.collect());
    let request = v1::CreateImageRequest { mutation, name, files, origin, holder };
    let outcome = call!(session, ImagesClient<_>, create_image, request).await?;
    session.settle(&what, Some(outcome)).await
}

pub(crate) async fn run(session: &Session, verb: ImageVerb) -> Result<()> {
    match verb {
        ImageVerb::Create(asked) => create(session, asked).await,
        ImageVerb::Get { name } => {
            let request = v1::GetImageRequest { image: name, freshness: None };
            let image = call!(session, ImagesClient<_>, get_image, request).await?;
            session.output.row(&image, COLUMNS)
        }
        ImageVerb::List => {
            let request = v1::ListImagesRequest::default();
            let (images, _) = all_pages!(session, ImagesClient<_>, list_images, request, images);
            session.output.rows(&images, COLUMNS)
        }
        ImageVerb::Delete { name } => {
            let what = format!("image {name} deleted");
            let mutation = session.client.mutation().await?;
            let request = v1::DeleteImageRequest { mutation, image: name };
            let outcome = call!(session, ImagesClient<_>, delete_image, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

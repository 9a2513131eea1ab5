//! Files from the web. They come to the machine of whoever runs the command and go on to the cluster
//! from there: no node ever opens a connection that a request names.

use std::{io::Write, time::Duration};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::progress::Transfer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the next piece.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a URL leads to, in a file that goes when it is dropped.
pub(crate) async fn to_file(url: &str) -> Result<NamedTempFile> {
    // Another part of the program may have chosen it before; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_MAX)
        // What began with TLS does not go on without.
        .https_only(url.starts_with("https://"))
        .user_agent(concat!("novacron/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let answer = client.get(url).send().await.with_context(|| format!("cannot get {url}"))?;
    if !answer.status().is_success() {
        bail!("cannot get {url}: the server says {}", answer.status());
    }
    let mut file = NamedTempFile::new().context("cannot make a temporary file")?;
    let transfer = Transfer::start(&format!("{url} comes here"), answer.content_length());
    let mut answer = answer;
    while let Some(piece) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
        file.write_all(&piece).context("cannot write the temporary file; is TMPDIR full?")?;
        transfer.advance(piece.len() as u64);
    }
    file.flush()?;
    Ok(file)
}

//! What nodes measure, as Prometheus would ask for it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::AccessOptions;

const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics of the node at an address, in Prometheus' text form.
pub(crate) async fn metrics(access: &AccessOptions, address: &str) -> Result<String> {
    let access = access.read()?;
    // Another part of the program may have chosen it before; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(access.authority.as_bytes())?;
    let client = reqwest::Client::builder()
        .tls_certs_only([authority])
        .timeout(PATIENCE)
        .no_proxy()
        .build()?;
    let asked = client.get(format!("https://{address}/metrics")).bearer_auth(access.bearer);
    let answer = asked.send().await.with_context(|| format!("{address} does not answer"))?;
    Ok(answer.error_for_status()?.text().await?)
}

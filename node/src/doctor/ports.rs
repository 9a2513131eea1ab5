//! Where the node listens, or will.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use cli::Finding;
use client::{Client, Options, v1};

use crate::{
    config::Config,
    files::{self, Files},
};

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let ours = answers(config).await;
    [
        ("port.peer", "node.peer_listen", config.peer_listen()),
        ("port.api", "node.api_listen", config.api_listen()),
    ]
    .map(|(check, field, address)| port(check, field, address, ours.as_ref()))
    .into()
}

fn port(check: &str, field: &str, address: SocketAddr, ours: Option<&String>) -> Finding {
    match std::net::TcpListener::bind(address) {
        Ok(_) if ours.is_some() => Finding::bad(
            check,
            format!("a node answers, and nobody listens on {address}"),
            format!("restart the node: {field} has changed since it was started"),
        ),
        Ok(_) => Finding::good(check, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match ours {
            Some(version) => {
                Finding::good(check, format!("this node listens on {address} ({version})"))
            }
            None => Finding::bad(
                check,
                format!("{address} is taken by another program, or by a node that does not answer"),
                format!("`ss -ltnp` shows by whom; end it, or set {field} otherwise"),
            ),
        },
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Finding::bad(
            check,
            format!("{address} is no address of this machine"),
            format!("set {field} to one that `ip address` shows, or to 0.0.0.0"),
        ),
        Err(error) => {
            Finding::bad(check, format!("{address}: {error}"), format!("set {field} otherwise"))
        }
    }
}

/// The version of this node, when it runs and answers.
async fn answers(config: &Config) -> Option<String> {
    let data = &config.node.data_directory;
    let files = files::is_set_up(data).then(|| Files::load(data).ok()).flatten()?;
    let client = Client::new(Options {
        endpoints: vec![config.node.api_address.get_ref().clone()],
        authority: files.authority.certificate_pem().to_owned(),
        server_name: raft_store::identity::cluster_name(files.node.cluster),
        bearer: String::new(),
        deadline: Duration::from_secs(3),
        traceparent: None,
    });
    let client = client.ok()?;
    let asked = client.call(v1::GetVersionRequest {}, async |channel, request| {
        v1::clusters_client::ClustersClient::new(channel).get_version(request).await
    });
    asked.await.ok().map(|version| version.version)
}

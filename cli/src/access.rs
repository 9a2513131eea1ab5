//! Which cluster, and as whom.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use client::{Client, Options};
use serde::{Deserialize, Serialize};

/// What is needed to talk to a cluster. `novacron init` and `novacron dev` write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    /// `host:port` of some nodes' API.
    pub endpoints: Vec<String>,
    /// The cluster's certificate authority, PEM.
    pub authority: String,
    /// The name that certificates carry.
    pub server_name: String,
    /// The bearer credential.
    pub bearer: String,
}

/// Where the access comes from.
#[derive(Clone, Debug, Args)]
pub struct AccessOptions {
    /// An access file, as `novacron init` and `novacron dev` write it; else the current context.
    #[arg(long, global = true, env = "NOVACRON_ACCESS", value_name = "FILE")]
    access: Option<PathBuf>,
    /// A context by name, instead of the current one.
    #[arg(long, global = true, env = "NOVACRON_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

/// How long a call may take, retries included.
const DEADLINE: Duration = Duration::from_secs(30);

impl AccessOptions {
    pub(crate) fn client(&self) -> Result<Client> {
        let access = self.read()?;
        let options = Options {
            endpoints: access.endpoints,
            authority: access.authority,
            server_name: access.server_name,
            bearer: access.bearer,
            deadline: DEADLINE,
            // Whoever traces what this command is a part of says so there.
            traceparent: std::env::var("TRACEPARENT").ok(),
        };
        Ok(Client::new(options)?)
    }

    pub(crate) fn read(&self) -> Result<Access> {
        let path = match (&self.access, &self.context) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => contexts()?.join(format!("{name}.json")),
            (None, None) => match current()? {
                Some(name) => contexts()?.join(format!("{name}.json")),
                None => bail!(
                    "no cluster is chosen: give --access FILE, or set NOVACRON_ACCESS, or run \
                     `novacron context add NAME FILE`"
                ),
            },
        };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the access file {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no access file", path.display()))
    }
}

/// Where contexts lie.
pub(crate) fn contexts() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CONFIG_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".config"),
    };
    Ok(base.join("novacron/contexts"))
}

/// The name of the current context, if one is chosen.
pub(crate) fn current() -> Result<Option<String>> {
    match std::fs::read_to_string(contexts()?.join("current")) {
        Ok(name) => Ok(Some(name.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot read the current context"),
    }
}

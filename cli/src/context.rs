//! Contexts: access files under a name.

use std::{os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::access::{Access, contexts, current};

/// Which cluster commands go to.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Keep a copy of an access file under a name, and choose it.
    Add {
        /// The name.
        name: String,
        /// The access file.
        file: PathBuf,
    },
    /// Choose a context.
    Use {
        /// The name.
        name: String,
    },
    /// All contexts; the chosen one is marked.
    List,
}

pub(crate) fn run(verb: Verb) -> Result<()> {
    let directory = contexts()?;
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = |name: &str| directory.join(format!("{name}.json"));
    let choose = |name: &str| {
        std::fs::write(directory.join("current"), name).context("cannot choose the context")
    };
    match verb {
        Verb::Add { name, file } => {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                bail!("{name:?} is not a name: use letters, digits and '-'");
            }
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let _: Access = serde_json::from_str(&text)
                .with_context(|| format!("{} is no access file", file.display()))?;
            std::fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(path(&name))
                .and_then(|mut out| std::io::Write::write_all(&mut out, text.as_bytes()))
                .with_context(|| format!("cannot write {}", path(&name).display()))?;
            choose(&name)
        }
        Verb::Use { name } => {
            if !path(&name).exists() {
                bail!("there is no context {name}; `novacron context list` shows all");
            }
            choose(&name)
        }
        Verb::List => {
            let chosen = current()?;
            let mut names: Vec<String> = std::fs::read_dir(&directory)?
                .filter_map(|file| file.ok()?.file_name().into_string().ok())
                .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
                .collect();
            names.sort();
            for name in names {
                let mark = if chosen.as_ref() == Some(&name) { '*' } else { ' ' };
                println!("{mark} {name}");
            }
            Ok(())
        }
    }
}

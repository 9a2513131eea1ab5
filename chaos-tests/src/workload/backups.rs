//! Backups: one after the other is made while everything else goes on. In the end a cluster begins again from the
//! last one, and is asked for every register.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use client::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Load, registers::Registers, think};

pub(crate) const MODEL: &str = "backup";

/// Those that were made.
pub(crate) struct Backups {
    directory: PathBuf,
    last: Mutex<Option<PathBuf>>,
}

impl Backups {
    /// Keeps them in a directory.
    pub(crate) fn in_directory(directory: &Path) -> Arc<Backups> {
        Arc::new(Backups { directory: directory.to_owned(), last: Mutex::default() })
    }

    /// Makes one after the other, until the load is over.
    pub(crate) fn make_them(self: &Arc<Backups>, load: &Load, seed: u64) -> JoinSet<()> {
        let (backups, load) = (self.clone(), load.clone());
        let mut random = fastrand::Rng::with_seed(seed ^ (1 << 56));
        let mut all = JoinSet::new();
        all.spawn(async move {
            let mut process = load.history.process(MODEL);
            for number in 0_u64.. {
                think(&mut random, 1_000..8_000).await;
                if load.is_over() {
                    return;
                }
                let name = format!("{number}.backup");
                let path = backups.directory.join(&name);
                let call = process.invoke("make", &name, Value::Null);
                let made = load.to_read(&mut random).back_up(&path, |_, _| ()).await;
                call.hear_of(&made, |made| json!({ "revision": made.revision }));
                let gone = if made.is_ok() { backups.put(path) } else { Some(path) };
                if let Some(gone) = gone {
                    // There may be none: it was not even begun.
                    let _ = std::fs::remove_file(gone);
                }
            }
        });
        all
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes it.
    pub(crate) fn remove(&self) {
        if let Some(last) = self.last() {
            let _ = std::fs::remove_file(last);
        }
    }

    fn put(&self, path: PathBuf) -> Option<PathBuf> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(path)
    }
}

/// Asks a cluster that has begun again from a backup for every register that there ever was. What it answers belongs
/// to the history.
pub(crate) async fn look(load: &Load, registers: &Registers, backup: &Path, client: &Client) {
    let name = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut process = load.history.process(MODEL);
    for register in registers.names() {
        let call = process.invoke("restored", &register, json!({ "backup": name }));
        let found = registers.ask(client, &register).await;
        call.hear_of(&found, |(value, etag)| json!({ "value": value, "etag": etag }));
    }
}

//! openraft's own suite for stores.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
};
use std::sync::Arc;

use crate::{
    ground::Aside,
    log::Log,
    machine::Machine,
    types::TypeConfig,
    view::View,
    wal::{Wal, WalOptions},
};

struct Builder;

impl StoreBuilder<TypeConfig, Log, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<TypeConfig>> {
        let failed = |error: &dyn std::fmt::Display| {
            let error = std::io::Error::other(error.to_string());
            StorageError::read(TypeConfig::err_from_error(&error))
        };
        let directory = tempfile::tempdir().map_err(|error| failed(&error))?;
        let options = WalOptions { segment_bytes: 64 << 10, ..WalOptions::default() };
        let wal = Wal::open(&directory.path().join("log"), options, false)
            .map_err(|error| failed(&error))?;
        let snapshots = directory.path().join("snapshot");
        std::fs::create_dir(&snapshots).map_err(|error| failed(&error))?;
        let (machine, views) = Machine::new(View::default(), None, snapshots, Aside::Thread);
        // The machine publishes to readers that nobody is here.
        drop(views);
        Ok((directory, Log(Arc::new(wal)), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_what_openraft_expects() {
    Suite::test_all(Builder).await.unwrap();
}

//! Backups of the cluster's state.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf, pin::Pin};

use domain::principal::Role;
use futures_util::{Stream, stream};
use proto::{v1, v1::backups_server::Backups};
use raft_store::Store;
use tokio::{fs::File, io::AsyncReadExt};
use tonic::{Request, Response, Status};

use super::{Api, auth};

/// Bytes of a message.
const PIECE_BYTES: usize = 256 << 10;

/// Where a backup lies while it is sent: on the disk that is watched, and gone when that is over. What a
/// crash left goes with the next.
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: PathBuf) -> std::io::Result<Scratch> {
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<v1::BackUpResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Backups for Api {
    type BackUpStream = Pieces;

    async fn back_up(&self, _: Request<v1::BackUpRequest>) -> Result<Response<Pieces>, Status> {
        auth::caller(Role::Admin)?;
        let busy = |_| Status::resource_exhausted("the node makes another backup; try again later");
        let turn = self.backups.clone().try_acquire_owned().map_err(busy)?;
        let view = self.view(None).await?;
        let data = self.directory.clone();
        let failed =
            |error: &dyn std::fmt::Display| Status::internal(format!("no backup: {error}"));
        let made = tokio::task::spawn_blocking(move || {
            let directory = Scratch::make(data.join("backup"))?;
            let path = Store::back_up(&view, &directory.0).map_err(std::io::Error::other)?;
            let size_bytes = std::fs::metadata(&path)?.len();
            Ok::<_, std::io::Error>((directory, path, size_bytes, view.revision()))
        });
        let made = made.await.map_err(|error| failed(&error))?;
        let (directory, path, size_bytes, revision) = made.map_err(|error| failed(&error))?;
        let file = File::open(&path).await.map_err(|error| failed(&error))?;
        let first =
            v1::BackUpResponse { revision: revision.as_u64(), size_bytes, data: Vec::new() };
        let begun = (Some(first), file, directory, turn);
        let pieces = stream::try_unfold(begun, async |(first, mut file, directory, turn)| {
            if let Some(first) = first {
                return Ok(Some((first, (None, file, directory, turn))));
            }
            let mut data = vec![0; PIECE_BYTES];
            let count = file.read(&mut data).await?;
            data.truncate(count);
            let piece = v1::BackUpResponse { data, ..Default::default() };
            Ok((count > 0).then_some((piece, (None, file, directory, turn))))
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}

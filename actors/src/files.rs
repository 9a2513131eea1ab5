//! The files of images on this node, named by their content. Hosts boot from them; other nodes
//! fetch them from here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    State,
    envelope::Command,
    id::Digest,
    image::{File, Image, ImageCommand},
    setting::Key,
};
use drivers::{DriverError, ErrorKind};
use raft_store::Store;
use sha2::Digest as _;
use tokio::io::AsyncWriteExt;

use crate::disk;

/// How long a file stays that no image has: its image may be about to be made.
const UNNEEDED_AFTER: Duration = Duration::from_secs(3_600);
/// Ends the name of a file that is not whole.
const PARTIAL: &str = "tmp";

/// The copies on one node.
pub struct ImageFiles {
    directory: PathBuf,
    /// One turn per file: who comes second finds it there.
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageFiles {
    /// Opens the directory, and drops what was not whole when the node ended.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(directory: &Path) -> std::io::Result<ImageFiles> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(ImageFiles { directory: directory.canonicalize()?, turns: Mutex::default() })
    }

    /// Where a file lies, if it is here.
    #[must_use]
    pub fn path(&self, file: Digest) -> Option<PathBuf> {
        Some(self.directory.join(file.to_string())).filter(|path| path.exists())
    }

    /// Begins to write a file of this content.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] when the disk would be fuller than the cluster allows.
    pub async fn receive(
        &self,
        state: &State,
        file: Digest,
        size_bytes: u64,
    ) -> Result<Incoming, DriverError> {
        let percent_max = u8::try_from(state.setting(Key::DiskFullPercent)).unwrap_or(100);
        if !disk::has_room(&self.directory, size_bytes, percent_max) {
            let message = format!(
                "{size_bytes} bytes more would fill the node's disk beyond {percent_max} %; delete \
                 images or VMs, or give it a larger one"
            );
            return Err(DriverError::new(ErrorKind::Capacity, message));
        }
        let name = format!("{file}.{}.{PARTIAL}", uuid::Uuid::new_v4().simple());
        let partial = Partial(self.directory.join(name));
        let writer = tokio::fs::File::create(&partial.0).await.map_err(|error| io(&error))?;
        let path = self.directory.join(file.to_string());
        Ok(Incoming { file, left: size_bytes, path, partial, writer, hasher: Default::default() })
    }

    /// Where all files of an image lie; what is missing is fetched from a node that has it.
    ///
    /// # Errors
    /// When no node gives it.
    pub async fn bring(
        &self,
        store: &Store,
        image: &Image,
    ) -> Result<BTreeMap<Digest, PathBuf>, DriverError> {
        let mut paths = BTreeMap::new();
        for file in &image.files {
            let turn = self.turn(file.sha256);
            let _turn = turn.lock().await;
            let path = match self.path(file.sha256) {
                Some(path) => path,
                None => self.fetch(store, image, file).await?,
            };
            paths.insert(file.sha256, path);
        }
        if !image.files.is_empty() && !image.holders.contains(&store.node()) {
            let held = Command::Image(ImageCommand::Held { image: image.id });
            if let Err(error) = store.propose_as_node(held).await {
                tracing::debug!(%error, image = %image.name, "the copy was not reported");
            }
        }
        Ok(paths)
    }

    fn turn(&self, file: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(file).or_default().clone()
    }

    async fn fetch(
        &self,
        store: &Store,
        image: &Image,
        file: &File,
    ) -> Result<PathBuf, DriverError> {
        let view = store.view();
        let mut holders: Vec<_> =
            image.holders.iter().copied().filter(|holder| *holder != store.node()).collect();
        // Not all from the same one.
        if !holders.is_empty() {
            let first = usize::try_from(store.node()).unwrap_or(0) % holders.len();
            holders.rotate_left(first);
        }
        let mut why = Vec::new();
        for holder in holders {
            let mut incoming = self.receive(&view.state, file.sha256, file.size_bytes).await?;
            let name = view.state.nodes.get(&holder).map_or("?", |node| node.name.as_str());
            match copy(store, holder, file, &mut incoming).await {
                Ok(()) => match incoming.finish().await {
                    Ok(path) => {
                        tracing::info!(image = %image.name, part = file.part.as_str(), from = name, "copied");
                        return Ok(path);
                    }
                    Err(error) => why.push(format!("{name}: {}", error.message)),
                },
                Err(error) => why.push(format!("{name}: {error}")),
            }
        }
        let message = match why.as_slice() {
            [] => format!("no node holds the {} of image {}", file.part.as_str(), image.name),
            why => format!("image {} cannot be fetched: {}", image.name, why.join("; ")),
        };
        Err(DriverError::new(ErrorKind::Transient, message))
    }

    /// Drops files that no image has, some time after they came. `state` must be the newest: a node
    /// that is behind may not know of the image that needs them.
    pub(crate) fn drop_unneeded(&self, state: &State) -> std::io::Result<()> {
        let files = state.images.values().flat_map(|image| &image.files);
        let needed: BTreeSet<String> = files.map(|file| file.sha256.to_string()).collect();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if Digest::from_hex(&name).is_some() && !needed.contains(&name) && age > UNNEEDED_AFTER
            {
                tracing::info!(file = name, "a file that no image has is dropped");
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

async fn copy(
    store: &Store,
    holder: domain::id::NodeId,
    file: &File,
    incoming: &mut Incoming,
) -> Result<(), String> {
    let mut fetch = store.fetch(holder, file.sha256).await?;
    while let Some(piece) = fetch.next().await? {
        incoming.write(&piece).await.map_err(|error| error.message)?;
    }
    Ok(())
}

/// A file that is being written. Dropped before [`Incoming::finish`] it leaves nothing.
pub struct Incoming {
    file: Digest,
    left: u64,
    path: PathBuf,
    partial: Partial,
    writer: tokio::fs::File,
    hasher: sha2::Sha256,
}

struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Incoming {
    /// Writes what comes next.
    ///
    /// # Errors
    /// [`ErrorKind::Permanent`] when more comes than was announced.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), DriverError> {
        let count = piece.len() as u64;
        self.left =
            self.left.checked_sub(count).ok_or_else(|| wrong("is longer than announced"))?;
        self.hasher.update(piece);
        self.writer.write_all(piece).await.map_err(|error| io(&error))
    }

    /// Checks the file, leaves it on the disk and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Permanent`] when it is another file than was announced.
    pub async fn finish(mut self) -> Result<PathBuf, DriverError> {
        if self.left > 0 {
            return Err(wrong(&format!("ends {} bytes too early", self.left)));
        }
        let found = Digest::from_bytes(self.hasher.finalize().into());
        if found != self.file {
            return Err(wrong(&format!("has the SHA-256 {found}, not {}", self.file)));
        }
        self.writer.flush().await.map_err(|error| io(&error))?;
        self.writer.sync_all().await.map_err(|error| io(&error))?;
        tokio::fs::rename(&self.partial.0, &self.path).await.map_err(|error| io(&error))?;
        if let Some(directory) = self.path.parent() {
            let directory = tokio::fs::File::open(directory).await.map_err(|error| io(&error))?;
            directory.sync_all().await.map_err(|error| io(&error))?;
        }
        Ok(self.path)
    }
}

fn wrong(what: &str) -> DriverError {
    DriverError::new(ErrorKind::Permanent, format!("the file {what}"))
}

fn io(error: &std::io::Error) -> DriverError {
    DriverError::new(ErrorKind::Transient, format!("the node's image files: {error}"))
}

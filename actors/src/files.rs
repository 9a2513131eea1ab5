//! The files of images on this node, named by their content. Hosts boot from them; other nodes
//! fetch them from here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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

/// How long a body waits for a file before it looks again at whether it is still wanted.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a file stays that no image has: its image may be about to be made.
const UNNEEDED_AFTER: Duration = Duration::from_secs(3_600);
/// Ends the name of a file that is not whole.
const PARTIAL: &str = "tmp";

/// The copies on one node.
pub struct ImageFiles {
    directory: PathBuf,
    /// One turn per file: who comes second finds it there.
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Bytes that were announced and are not yet written.
    expected: Arc<AtomicU64>,
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
        let directory = directory.canonicalize()?;
        Ok(ImageFiles { directory, turns: Mutex::default(), expected: Arc::default() })
    }

    /// Where a file lies, if it is here; its image is about to be made, so it stays for a while.
    #[must_use]
    pub fn hold(&self, file: Digest) -> Option<PathBuf> {
        let path = self.path(file)?;
        touch(&path).ok().map(|()| path)
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
        let expected = self.expected.fetch_add(size_bytes, Ordering::SeqCst) + size_bytes;
        let left = Left { bytes: size_bytes, expected: self.expected.clone() };
        if !disk::has_room(&self.directory, expected, percent_max) {
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
        let (hasher, unsynced) = (Default::default(), 0);
        Ok(Incoming { file, left, path, partial, writer, hasher, unsynced })
    }

    /// Whether all files of an image are here; then where they lie.
    pub(crate) fn paths(&self, image: &Image) -> Option<BTreeMap<Digest, PathBuf>> {
        let files = image.files.iter();
        files.map(|file| Some((file.sha256, self.path(file.sha256)?))).collect()
    }

    /// Fetches what is missing of an image from a node that has it. A file that takes long comes all
    /// the same, when nobody waits for it any more.
    ///
    /// # Errors
    /// When no node gives it, or it is still on its way.
    pub(crate) async fn bring(
        self: &Arc<Self>,
        store: &Store,
        image: &Image,
    ) -> Result<(), DriverError> {
        for file in image.files.iter().filter(|file| self.path(file.sha256).is_none()) {
            let on_its_way = |_| {
                let message = format!("image {} is still on its way to this node", image.name);
                DriverError::new(ErrorKind::Transient, message)
            };
            let turn = self.turn(file.sha256).lock_owned();
            let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(on_its_way)?;
            let (files, store) = (self.clone(), store.clone());
            let (image, file) = (image.clone(), file.clone());
            let fetching = tokio::spawn(async move {
                let _turn = turn;
                match files.path(file.sha256) {
                    Some(_) => Ok(()),
                    None => files.fetch(&store, &image, &file).await.map(drop),
                }
            });
            let fetched = tokio::time::timeout(PATIENCE, fetching).await.map_err(on_its_way)?;
            fetched.map_err(|error| {
                DriverError::new(ErrorKind::Transient, format!("the copy broke off: {error}"))
            })??;
        }
        if !image.files.is_empty() && !image.holders.contains(&store.node()) {
            let held = Command::Image(ImageCommand::Held { image: image.id });
            if let Err(error) = store.propose_as_node(held).await {
                tracing::debug!(%error, image = %image.name, "the copy was not reported");
            }
        }
        Ok(())
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

    /// Drops files that no image has had for some time: a file's time of change is when it was last
    /// known to be needed. `state` must be the newest: a node that is behind may not know of the
    /// image that needs them.
    pub(crate) fn drop_unneeded(&self, state: &State) -> std::io::Result<()> {
        let files = state.images.values().flat_map(|image| &image.files);
        let needed: BTreeSet<String> = files.map(|file| file.sha256.to_string()).collect();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if Digest::from_hex(&name).is_none() {
                continue;
            }
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if needed.contains(&name) {
                if age > UNNEEDED_AFTER / 4 {
                    touch(&entry.path())?;
                }
            } else if age > UNNEEDED_AFTER {
                tracing::info!(file = name, "a file that no image has is dropped");
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn touch(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.set_modified(std::time::SystemTime::now())
}

async fn copy(
    store: &Store,
    holder: domain::id::NodeId,
    file: &File,
    incoming: &mut Incoming,
) -> Result<(), String> {
    let fetch = store.fetch(holder, file.sha256).await?;
    let mut fetch = fetch.ok_or("it has no copy")?;
    while let Some(piece) = fetch.next().await? {
        incoming.write(&piece).await.map_err(|error| error.message)?;
    }
    Ok(())
}

/// A file that is being written. Dropped before [`Incoming::finish`] it leaves nothing.
pub struct Incoming {
    file: Digest,
    left: Left,
    path: PathBuf,
    partial: Partial,
    writer: tokio::fs::File,
    hasher: sha2::Sha256,
    /// Bytes written since the last sync.
    unsynced: u64,
}

/// What is still to come of a file. Room is kept for it on the disk.
struct Left {
    bytes: u64,
    expected: Arc<AtomicU64>,
}

impl Left {
    fn take(&mut self, bytes: u64) -> Option<()> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        self.expected.fetch_sub(bytes, Ordering::SeqCst);
        Some(())
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.expected.fetch_sub(self.bytes, Ordering::SeqCst);
    }
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
        // Bit by bit: the last sync must not take minutes.
        const SYNC_BYTES: u64 = 64 << 20;
        let count = piece.len() as u64;
        self.left.take(count).ok_or_else(|| wrong("is longer than announced"))?;
        self.hasher.update(piece);
        self.writer.write_all(piece).await.map_err(|error| io(&error))?;
        self.unsynced += count;
        if self.unsynced > SYNC_BYTES {
            self.unsynced = 0;
            self.writer.sync_data().await.map_err(|error| io(&error))?;
        }
        Ok(())
    }

    /// Checks the file, leaves it on the disk and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Permanent`] when it is another file than was announced.
    pub async fn finish(mut self) -> Result<PathBuf, DriverError> {
        if self.left.bytes > 0 {
            return Err(wrong(&format!("ends {} bytes too early", self.left.bytes)));
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

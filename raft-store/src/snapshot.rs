//! Snapshot files: the whole state at some entry, so that the log before it may go.
//!
//! ```text
//!  magic  header  frame*  end
//!  frame: length u32, crc u32, zstd( (length u32, record)* )        the last frame is empty
//! ```
//!
//! A file is whole or it is not there: it is written under another name, synced and renamed.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use domain::{
    State, codec,
    state::{Loader, RecordError},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::DamageError,
    types::{Members, Position},
};

const MAGIC: &[u8; 8] = b"NCSNAP01";
/// Uncompressed bytes of a frame.
const FRAME_BYTES_SOFT: usize = 1 << 20;
/// Longest frame that is believed, packed or not. A record is at most an event, and all events of
/// the ring together are bounded far below this.
const FRAME_BYTES_MAX: usize = 256 << 20;
const ZSTD_LEVEL: i32 = 1;
/// How many snapshots are kept: the newest, and one in case it is damaged.
const KEPT: usize = 2;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// The newest entry in it.
    pub(crate) at: Option<Position>,
    /// The membership in force.
    pub(crate) members: Members,
    /// The entry that set it.
    pub(crate) members_at: Option<Position>,
}

/// A snapshot file, verified or just written.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
}

/// Writes a snapshot of `state` into `directory` and removes those it replaces.
pub(crate) fn write(
    directory: &Path,
    header: Header,
    state: &State,
) -> Result<SnapshotFile, DamageError> {
    let path = directory.join(file_name(header.at));
    let temporary = path.with_extension("tmp");
    let failed = || DamageError::io(&temporary);
    let file = File::create(&temporary).map_err(failed())?;
    let mut out = BufWriter::new(file);
    out.write_all(MAGIC).map_err(failed())?;
    write_frame(&mut out, &codec::encode(&header)).map_err(failed())?;
    let mut frame = Vec::with_capacity(FRAME_BYTES_SOFT);
    for record in state.records() {
        let encoded = codec::encode(&record);
        let length = u32::try_from(encoded.len()).expect("a record is far below 4 GiB");
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&encoded);
        if frame.len() >= FRAME_BYTES_SOFT {
            write_frame(&mut out, &frame).map_err(failed())?;
            frame.clear();
        }
    }
    if !frame.is_empty() {
        write_frame(&mut out, &frame).map_err(failed())?;
    }
    write_frame(&mut out, &[]).map_err(failed())?;
    let file = out.into_inner().map_err(|error| error.into_error()).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    drop(file);
    adopt(directory, &temporary, header)
}

/// Gives a whole, synced file its name, and removes those it replaces.
pub(crate) fn adopt(
    directory: &Path,
    temporary: &Path,
    header: Header,
) -> Result<SnapshotFile, DamageError> {
    let path = directory.join(file_name(header.at));
    std::fs::rename(temporary, &path).map_err(DamageError::io(temporary))?;
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(DamageError::io(directory))?;
    for old in list(directory)?.into_iter().rev().skip(KEPT).filter(|old| *old != path) {
        // A build and an install at the same time remove the same one.
        match std::fs::remove_file(&old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DamageError::io(&old)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(SnapshotFile { path, header })
}

/// The snapshots in `directory`, oldest first.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, DamageError> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(directory).map_err(DamageError::io(directory))? {
        let path = file.map_err(DamageError::io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "snapshot") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Names sort like positions: a later term is later whatever the index, as in Raft.
fn file_name(at: Option<Position>) -> String {
    let (index, term) = at.map_or((0, 0), |at| (at.index, at.term));
    format!("{index:020}-{term:020}.snapshot")
}

/// Reads and verifies a snapshot.
pub(crate) fn read(path: &Path) -> Result<(SnapshotFile, State), DamageError> {
    let mut reader = Reader::open(path)?;
    let header = reader.header()?;
    let mut loader = Loader::default();
    while let Some(frame) = reader.frame()? {
        let mut rest = frame.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let encoded = tail.get(..length).ok_or_else(|| reader.damaged("a record is cut"))?;
            let record = codec::decode(encoded).map_err(|e| reader.damaged(&e.to_string()))?;
            loader.push(record).map_err(|error| match error {
                RecordError::Newer(_) => {
                    DamageError::Newer { file: path.to_owned(), what: error.to_string() }
                }
                RecordError::Meta
                | RecordError::Deleted(_)
                | RecordError::Twice(_)
                | RecordError::Order(_) => reader.damaged(&error.to_string()),
            })?;
            rest = &tail[length..];
        }
        if !rest.is_empty() {
            return Err(reader.damaged("a record is cut"));
        }
    }
    let state = loader.finish().map_err(|error| reader.damaged(&error.to_string()))?;
    if header.at.is_some_and(|at| at.index != state.index) {
        return Err(reader.damaged("the header and the state are of different entries"));
    }
    Ok((SnapshotFile { path: path.to_owned(), header }, state))
}

fn write_frame(out: &mut impl Write, plain: &[u8]) -> std::io::Result<()> {
    let packed = if plain.is_empty() { Vec::new() } else { zstd::encode_all(plain, ZSTD_LEVEL)? };
    let length = u32::try_from(packed.len()).expect("a frame is far below 4 GiB");
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&crc32fast::hash(&packed).to_le_bytes())?;
    out.write_all(&packed)
}

struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Reader, DamageError> {
        let file = File::open(path).map_err(DamageError::io(path))?;
        let mut reader = Reader { path: path.to_owned(), file: BufReader::new(file), offset: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.damaged("this is no snapshot"));
        }
        Ok(reader)
    }

    fn header(&mut self) -> Result<Header, DamageError> {
        let frame = self.frame()?.ok_or_else(|| self.damaged("there is no header"))?;
        codec::decode(&frame).map_err(|error| self.damaged(&error.to_string()))
    }

    /// The next frame, or nothing after the last.
    fn frame(&mut self) -> Result<Option<Vec<u8>>, DamageError> {
        let head = self.take(8)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, crc) = (number(0) as usize, number(4));
        if length > FRAME_BYTES_MAX {
            return Err(self.damaged("a frame is longer than any is written"));
        }
        let packed = self.take(length)?;
        if crc32fast::hash(&packed) != crc {
            return Err(self.damaged("a checksum does not match"));
        }
        if packed.is_empty() {
            return Ok(None);
        }
        let mut plain = Vec::new();
        let limit = FRAME_BYTES_MAX as u64;
        let unpacked = zstd::Decoder::new(packed.as_slice())
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut plain));
        let count = unpacked.map_err(|error| self.damaged(&error.to_string()))?;
        if count >= FRAME_BYTES_MAX {
            return Err(self.damaged("a frame is longer than any is written"));
        }
        Ok(Some(plain))
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, DamageError> {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(|_| self.damaged("the file is cut"))?;
        self.offset += count as u64;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> DamageError {
        DamageError::Damaged { file: self.path.clone(), offset: self.offset, what: what.to_owned() }
    }
}

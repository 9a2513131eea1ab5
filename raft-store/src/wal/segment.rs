//! Segment files: `0000000000000001.wal` and so on, and spares that wait to become one.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// An open segment.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: File,
    /// Where the next frame goes.
    pub(super) end: u64,
    pub(super) capacity: u64,
}

pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}.wal"))
}

/// The numbers of the segments in `directory`, in order.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    numbers(directory, "wal")
}

fn spares(directory: &Path) -> io::Result<Vec<u64>> {
    numbers(directory, "spare")
}

fn numbers(directory: &Path, extension: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|found| found == extension)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens the segment `number` to go on writing at `end`.
pub(super) fn open(directory: &Path, number: u64, end: u64) -> io::Result<Segment> {
    let file = OpenOptions::new().read(true).write(true).open(path(directory, number))?;
    let capacity = file.metadata()?.len();
    Ok(Segment { number, file, end, capacity })
}

/// Makes the segment `number`, from a spare if there is one that is long enough.
pub(super) fn create(directory: &Path, number: u64, capacity: u64) -> io::Result<Segment> {
    let target = path(directory, number);
    let spare = spares(directory)?
        .into_iter()
        .map(|n| spare_path(directory, n))
        .find(|spare| spare.metadata().is_ok_and(|metadata| metadata.len() >= capacity));
    match spare {
        Some(spare) => std::fs::rename(spare, &target)?,
        None => {
            let temporary = directory.join("new.tmp");
            let file = File::create(&temporary)?;
            write_zeros(&file, capacity)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &target)?;
        }
    }
    sync_directory(directory)?;
    open(directory, number, 0)
}

/// Takes a purged segment out of the log: kept as a spare if it is of the usual size and few are.
pub(super) fn retire(directory: &Path, number: u64, capacity: u64) -> io::Result<()> {
    const SPARES_MAX: usize = 2;
    let file = path(directory, number);
    let usual = file.metadata()?.len() == capacity;
    if usual && spares(directory)?.len() < SPARES_MAX {
        std::fs::rename(&file, spare_path(directory, number))
    } else {
        std::fs::remove_file(&file)
    }
}

fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}.spare"))
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let zeros = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let count = usize::try_from(bytes - at).unwrap_or(CHUNK).min(CHUNK);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

//! The log across restarts and damage.

use std::path::Path;

use super::{at, entry};
use crate::{
    DamageError,
    types::{Ballot, LogEntry},
    wal::{Index, Journal, Record, Wal, WalOptions},
};

fn options() -> WalOptions {
    WalOptions { segment_bytes: 4 << 10, ..WalOptions::default() }
}

async fn write(wal: &dyn Journal, records: Vec<Record>) {
    wal.write_durably(records).await.unwrap();
}

fn indexes(wal: &Wal) -> Vec<u64> {
    wal.index().range(0, u64::MAX).map(|entry| entry.at.index).collect()
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    files.sort();
    files
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let ballot = Ballot { term: 3, node: 2, committed: true };
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    write(&wal, vec![Record::Ballot(ballot)]).await;
    for index in 0..200 {
        write(&wal, vec![Record::Entry(entry(index))]).await;
    }
    write(&wal, vec![Record::Truncate(Some(at(189))), Record::Committed(at(150))]).await;
    write(&wal, vec![Record::Purge(at(99))]).await;
    let before = wal.index().clone();
    drop(wal);
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    assert_eq!(*wal.index(), before);
    assert_eq!(indexes(&wal), (100..190).collect::<Vec<_>>());
    assert_eq!(wal.index().ballot, Some(ballot));
    assert_eq!(wal.index().committed, Some(at(150)));
    assert_eq!(wal.index().last(), Some(at(189)));
}

/// What goes, whichever way, is not counted any more.
#[test]
fn bytes_are_those_of_the_entries() {
    let mut index = Index::default();
    let all = |index: &Index| index.range(0, u64::MAX).map(LogEntry::bytes).collect::<Vec<_>>();
    let records = (0..10).map(|index| Record::Entry(entry(index)));
    let records = records.chain([
        Record::Truncate(Some(at(7))),
        Record::Entry(entry(7)),
        Record::Entry(entry(8)),
        Record::Purge(at(2)),
    ]);
    for record in records {
        index.note(&record);
        assert_eq!(index.bytes(), all(&index).iter().sum::<usize>(), "{record:?}");
    }
    let bytes = all(&index);
    let of_newest = |count: usize| bytes.iter().rev().take(count).sum::<usize>();
    let rows = [
        (0, Some(8)),
        (of_newest(1), Some(7)),
        (of_newest(2) - 1, Some(7)),
        (of_newest(5), Some(3)),
    ];
    for (kept, beyond) in rows {
        assert_eq!(index.beyond(kept), beyond, "{kept}");
    }
    assert_eq!(index.beyond(of_newest(6)), None);
}

/// Purged segments are used again, so the disk's use is bounded and old frames lie about in them.
#[tokio::test]
async fn segments_are_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut wal = Wal::open(directory.path(), options(), false).unwrap();
    for round in 0..40 {
        for index in round * 50..(round + 1) * 50 {
            write(&wal, vec![Record::Entry(entry(index))]).await;
        }
        write(&wal, vec![Record::Purge(at(round * 50 + 39))]).await;
        if round % 7 == 3 {
            drop(wal);
            wal = Wal::open(directory.path(), options(), false).unwrap();
        }
        assert_eq!(indexes(&wal), (round * 50 + 40..(round + 1) * 50).collect::<Vec<_>>());
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert!(files <= 8, "{files} files after round {round}");
    }
}

/// A frame larger than a segment gets one of its own size.
#[tokio::test]
async fn a_large_entry_fits() {
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    write(&wal, vec![Record::Entry(entry(0))]).await;
    let mut large = entry(1);
    large.payload = crate::types::Payload::Proposal(vec![7; 100_000].into());
    write(&wal, vec![Record::Entry(large.clone())]).await;
    write(&wal, vec![Record::Entry(entry(2))]).await;
    drop(wal);
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    assert_eq!(indexes(&wal), [0, 1, 2]);
    assert!(wal.index().range(1, 2).eq([&large]));
}

/// Any bit, anywhere: either the node refuses to start and names the file, or what was lost is the
/// end of the last frame only, which cannot be told from one that was never acknowledged.
#[tokio::test]
async fn a_flipped_bit_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    for index in 0..60 {
        write(&wal, vec![Record::Entry(entry(index))]).await;
    }
    let whole = wal.index().clone();
    drop(wal);
    let files = segments(directory.path());
    assert!(files.len() >= 2, "the test wants several segments");
    let (mut refused, mut cut, mut harmless) = (0, 0, 0);
    for file in &files {
        let good = std::fs::read(file).unwrap();
        for byte in (0..good.len()).step_by(3) {
            let mut bent = good.clone();
            bent[byte] ^= 1 << (byte % 8);
            std::fs::write(file, &bent).unwrap();
            match Wal::open(directory.path(), options(), false) {
                Err(DamageError::Damaged { file: named, .. }) => {
                    assert!(files.contains(&named));
                    refused += 1;
                }
                Err(other) => panic!("byte {byte} of {}: {other}", file.display()),
                Ok(wal) if *wal.index() == whole => harmless += 1,
                Ok(wal) => {
                    assert_eq!(Some(file), files.last());
                    assert_eq!(wal.index().last(), Some(at(58)), "byte {byte}");
                    cut += 1;
                }
            }
            // Opening may have moved files about; put everything back.
            std::fs::write(file, &good).unwrap();
        }
    }
    assert!(refused > 1_000 && cut > 5 && harmless > 100, "{refused} {cut} {harmless}");
}

/// A torn end is cut and written over.
#[tokio::test]
async fn a_torn_end_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    for index in 0..10 {
        write(&wal, vec![Record::Entry(entry(index))]).await;
    }
    drop(wal);
    let file = segments(directory.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 5..].fill(0);
    std::fs::write(&file, &bytes).unwrap();
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    assert_eq!(wal.index().last(), Some(at(8)));
    write(&wal, vec![Record::Entry(entry(9)), Record::Entry(entry(10))]).await;
    drop(wal);
    assert_eq!(Wal::open(directory.path(), options(), false).unwrap().index().last(), Some(at(10)));
}

/// A lost segment in the middle is damage.
#[tokio::test]
async fn a_lost_segment_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::open(directory.path(), options(), false).unwrap();
    for index in 0..150 {
        write(&wal, vec![Record::Entry(entry(index))]).await;
    }
    drop(wal);
    let files = segments(directory.path());
    assert!(files.len() >= 3);
    std::fs::remove_file(&files[1]).unwrap();
    assert!(matches!(
        Wal::open(directory.path(), options(), false),
        Err(DamageError::Damaged { .. })
    ));
}

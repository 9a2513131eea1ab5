//! Snapshots, whole and damaged.

use super::{at, view};
use crate::{
    DamageError,
    snapshot::{Header, list, read, write},
    types::Members,
};

fn header(index: u64) -> Header {
    Header { at: Some(at(index)), members: Members::default(), members_at: None }
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let view = view(300);
    let file = write(directory.path(), header(300), &view.state).unwrap();
    let (again, state) = read(&file.path).unwrap();
    assert_eq!(again.header, header(300));
    assert_eq!(state, view.state);
    assert_eq!(state.chain, view.state.chain);
}

#[test]
fn the_newest_two_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    for count in [10, 20, 30] {
        write(directory.path(), header(count), &view(count).state).unwrap();
    }
    let names: Vec<String> = list(directory.path())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].contains("20-") && names[1].contains("30-"), "{names:?}");
}

#[test]
fn a_flipped_bit_or_a_missing_byte_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), header(50), &view(50).state).unwrap();
    let good = std::fs::read(&file.path).unwrap();
    for byte in 0..good.len() {
        let mut bent = good.clone();
        bent[byte] ^= 1 << (byte % 8);
        std::fs::write(&file.path, &bent).unwrap();
        assert!(matches!(read(&file.path), Err(DamageError::Damaged { .. })), "byte {byte}");
    }
    for end in (0..good.len()).step_by(7) {
        std::fs::write(&file.path, &good[..end]).unwrap();
        assert!(matches!(read(&file.path), Err(DamageError::Damaged { .. })), "cut at {end}");
    }
}

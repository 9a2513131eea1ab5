//! The copy in sled: it holds what it should, and is made again when it does not.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

use super::view;
use crate::{
    copy::{Copier, CopyError, load, open},
    view::View,
};

/// Lets the thread write the views, one after the other.
fn keep(directory: &Path, views: &[u64], written: Option<View>) {
    let (sender, receiver) = watch::channel(Arc::new(view(views[0])));
    let copier = Copier::start(directory.to_owned(), receiver, written).unwrap();
    for count in &views[1..] {
        std::thread::sleep(std::time::Duration::from_millis(400));
        sender.send_replace(Arc::new(view(*count)));
    }
    copier.stop();
}

#[test]
fn it_follows_and_continues() {
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), &[3, 30, 31], None);
    let loaded = load(directory.path()).unwrap();
    assert_eq!(loaded, view(31));
    keep(directory.path(), &[31, 60], Some(loaded));
    assert_eq!(load(directory.path()).unwrap(), view(60));
}

#[test]
fn a_missing_row_is_noticed_and_mended() {
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), &[40], None);
    for prefix in [b"r", b"e", b"s"] {
        let db = open(directory.path()).unwrap();
        let (key, _) = db.scan_prefix(prefix).next().unwrap().unwrap();
        db.remove(&key).unwrap();
        drop(db);
        let error = load(directory.path()).unwrap_err();
        assert!(matches!(error, CopyError::Wrong(_) | CopyError::Absent), "{error}");
        keep(directory.path(), &[40], None);
        assert_eq!(load(directory.path()).unwrap(), view(40));
    }
}

/// Whatever the bytes are, the answer is an error, or the right state; and it is made again.
#[test]
fn damage_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), &[40], None);
    let file = directory.path().join("db");
    let good = std::fs::read(&file).unwrap();
    let written: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for part in 0..12 {
        let mut bent = good.clone();
        bent[written[written.len() * part / 12]] ^= 0x10;
        std::fs::write(&file, &bent).unwrap();
        if let Ok(loaded) = load(directory.path()) {
            assert_eq!(loaded, view(40), "part {part}");
        }
        std::fs::write(&file, &good).unwrap();
    }
    std::fs::write(&file, vec![0xa5; 100_000]).unwrap();
    assert!(load(directory.path()).is_err());
    // The thread makes it anew, after its first pause.
    let (_sender, receiver) = watch::channel(Arc::new(view(40)));
    let copier = Copier::start(directory.path().to_owned(), receiver, None).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    copier.stop();
    assert_eq!(load(directory.path()).unwrap(), view(40));
}

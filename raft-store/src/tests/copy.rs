//! The copy in sled: it holds what it should, and is made again when it does not.

use std::{path::Path, sync::Arc, time::Duration};

use domain::{
    Revision,
    state::{Loader, Meta, Record},
};
use tokio::sync::watch;

use super::view;
use crate::{
    copy::{Copier, CopyError, load, open},
    view::View,
};

/// Lets the thread write the views, one after the other.
fn keep(directory: &Path, views: &[u64], written: Option<View>) {
    keep_views(directory, views.iter().map(|count| view(*count)).collect(), written);
}

fn keep_views(directory: &Path, views: Vec<View>, written: Option<View>) {
    let mut views = views.into_iter().map(Arc::new);
    let (sender, receiver) = watch::channel(views.next().unwrap());
    let copier = Copier::start(directory.to_owned(), receiver, written, Duration::ZERO).unwrap();
    for view in views {
        std::thread::sleep(Duration::from_millis(400));
        sender.send_replace(view);
    }
    copier.stop();
}

/// The same view when the requests and events of the first entries are forgotten.
fn forgetful(view: &View, upto: u64) -> View {
    let floor = Revision::new(view.state.epoch, upto);
    let mut loader = Loader::default();
    for record in view.state.records() {
        let record = match record {
            Record::Meta(meta) => {
                Record::Meta(Box::new(Meta { requests_floor: upto, events_floor: floor, ..*meta }))
            }
            Record::Request(request) if request.index <= upto => continue,
            Record::Event(event) if event.revision <= floor => continue,
            kept @ (Record::Row(_) | Record::Request(_) | Record::Event(_)) => kept,
        };
        loader.push(record).unwrap();
    }
    View { state: loader.finish().unwrap(), ..view.clone() }
}

/// Many requests and events share a row; what is forgotten may end in the middle of one.
#[test]
fn what_is_forgotten_is_not_read() {
    for upto in [1, 7, 8, 16, 17, 18, 29, 30, 31, 45, 60] {
        let directory = tempfile::tempdir().unwrap();
        let newest = forgetful(&view(60), upto);
        keep_views(directory.path(), vec![view(30), newest.clone()], None);
        let loaded = load(directory.path()).unwrap();
        assert_eq!(loaded, newest, "{upto} forgotten");
        let db = open(directory.path()).unwrap();
        let rows = db.scan_prefix(b"q").keys().map(Result::unwrap);
        let firsts = rows.map(|key| u64::from_be_bytes(key[1..].try_into().unwrap()));
        let useless =
            firsts.collect::<Vec<_>>().windows(2).filter(|two| two[1] <= upto + 1).count();
        // One may stay until the next batch: it is known by what comes after it.
        assert!(useless <= 1, "{upto} forgotten, {useless} rows kept");
        drop(db);
        keep_views(directory.path(), vec![forgetful(&view(90), upto)], Some(loaded));
        assert_eq!(load(directory.path()).unwrap(), forgetful(&view(90), upto));
    }
}

/// An event by itself, as older programs wrote it.
#[test]
fn an_older_copy_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), &[40], None);
    let db = open(directory.path()).unwrap();
    let key = [b"e".as_slice(), &Revision::new(1, 20).as_u64().to_be_bytes()].concat();
    db.insert(key, b"one event").unwrap();
    drop(db);
    assert!(matches!(load(directory.path()).unwrap_err(), CopyError::Wrong(_)));
    keep(directory.path(), &[40], None);
    assert_eq!(load(directory.path()).unwrap(), view(40));
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
    let copier =
        Copier::start(directory.path().to_owned(), receiver, None, Duration::ZERO).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    copier.stop();
    assert_eq!(load(directory.path()).unwrap(), view(40));
}

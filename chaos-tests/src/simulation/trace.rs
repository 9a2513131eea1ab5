//! Everything that happened, in its order.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use domain::id::Digest;

use super::link;

pub(super) struct Trace {
    count: Cell<u64>,
    digest: Cell<Digest>,
    file: RefCell<Option<BufWriter<File>>>,
}

impl Trace {
    pub(super) fn begin(file: Option<&Path>) -> io::Result<Trace> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let (count, digest) = (Cell::new(0), Cell::new(Digest::ZERO));
        Ok(Trace { count, digest, file: RefCell::new(file) })
    }

    pub(super) fn note(&self, line: &str) {
        self.count.set(self.count.get() + 1);
        self.digest.set(link(self.digest.get(), line));
        if let Some(file) = &mut *self.file.borrow_mut() {
            // The hash tells whether two runs are the same; the file is for people.
            let _ = writeln!(file, "{line}");
        }
    }

    /// How much there was, and its hash.
    pub(super) fn end(&self) -> (u64, Digest) {
        if let Some(file) = &mut *self.file.borrow_mut() {
            let _ = file.flush();
        }
        (self.count.get(), self.digest.get())
    }
}

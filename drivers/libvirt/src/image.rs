//! Copies of images on this host, named by their content.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use domain::{
    id::Digest,
    image::{File as ImageFile, Image, Part},
};
use drivers::{DriverError, ErrorKind};
use sha2::Digest as _;

use crate::error::io;

/// The copies of one host.
pub(crate) struct Images(PathBuf);

impl Images {
    pub(crate) fn open(state: &Path) -> std::io::Result<Images> {
        let directory = state.join("images");
        std::fs::create_dir_all(&directory)?;
        // Copies that were under way when the driver was killed.
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Images(directory.canonicalize()?))
    }

    /// The copy of an image's part; it is brought here first when there is none.
    pub(crate) fn part(
        &self,
        image: &Image,
        wanted: &[Part],
    ) -> Result<Option<(PathBuf, Part)>, DriverError> {
        let Some(file) = image.files.iter().find(|file| wanted.contains(&file.part)) else {
            return Ok(None);
        };
        let path = self.0.join(file.sha256.to_string());
        if !path.exists() {
            self.fetch(file, &path)?;
        }
        Ok(Some((path, file.part)))
    }

    /// Copies a file and checks that it is the one that was meant.
    fn fetch(&self, file: &ImageFile, path: &Path) -> Result<(), DriverError> {
        const CHUNK_BYTES: usize = 1 << 20;
        let mut source = File::open(&file.source).map_err(io(&file.source))?;
        let temporary = tempfile_beside(path);
        let mut copy = File::create(&temporary).map_err(io("the image's copy"))?;
        let mut hasher = sha2::Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = source.read(&mut chunk).map_err(io(&file.source))?;
            if count == 0 {
                break;
            }
            hasher.update(&chunk[..count]);
            copy.write_all(&chunk[..count]).map_err(io("the image's copy"))?;
        }
        copy.sync_all().map_err(io("the image's copy"))?;
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != file.sha256 {
            let _ = std::fs::remove_file(&temporary);
            let message = format!(
                "{} is not the file that was imported: its SHA-256 is {found}, not {}",
                file.source, file.sha256
            );
            return Err(DriverError::new(ErrorKind::Permanent, message));
        }
        std::fs::rename(&temporary, path).map_err(io("the image's copy"))
    }
}

/// Two bodies may fetch the same file at once.
fn tempfile_beside(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()))
}

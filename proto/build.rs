//! Makes the code of the .proto files. No protoc is needed: protox is a compiler in Rust.

use std::{env, error::Error, path::PathBuf};

const PEER: &[&str] = &["novacron/peer/v1/peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    peer(&root)
}

fn peer(root: &PathBuf) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(PEER)?;
    for file in compiler.files().filter_map(|file| file.path()) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

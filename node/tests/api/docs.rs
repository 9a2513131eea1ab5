//! What the pages tell people to type works.
//!
//! Each ```sh block of README.md and docs/ runs, in its order and in one shell per page, against a
//! fresh cluster. What needs root, several machines or a long time stands in ```console blocks.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::Lab;

/// The ```sh blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (Some(text), "```") => {
                blocks.push(std::mem::take(text));
                block = None;
            }
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

fn pages(root: &Path) -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pages_tell_people_to_type_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_novacron")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut ran = 0;
    for page in pages(root) {
        let blocks = blocks(&std::fs::read_to_string(&page).unwrap());
        if blocks.is_empty() {
            continue;
        }
        let lab = Lab::start(1, 3, 0).await;
        let here = tempfile::tempdir().unwrap();
        let access = here.path().join("access.json");
        std::fs::write(&access, serde_json::to_vec(&lab.cluster.access).unwrap()).unwrap();
        std::fs::copy(root.join("cluster.toml"), here.path().join("cluster.toml")).unwrap();
        let mut script = Command::new("bash");
        script
            .args(["-euo", "pipefail", "-c", &blocks.concat()])
            .current_dir(here.path())
            .env("PATH", &path)
            .env("NOVACRON_ACCESS", &access);
        let output = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}: {}\n{}\n{}",
            page.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ran += blocks.len();
        lab.cluster.stop().await;
    }
    println!("{ran} blocks ran");
    assert!(ran >= 3, "the pages have lost their examples");
}

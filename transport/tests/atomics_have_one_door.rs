//! Atomics come from `fulmar::sync` or `AtomicBuffer`, so that loom can watch them all.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a folder of the sources") {
        let path = entry.expect("an entry of that folder").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_the_sync_module_names_the_atomics_of_core() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for package in ["src", "../media-driver/src", "../broker/src"] {
        sources(&root.join(package), &mut files);
    }
    assert!(files.iter().any(|path| path.ends_with("src/sync/mod.rs")));
    let offenders: Vec<_> = files
        .iter()
        .filter(|path| !path.ends_with("src/sync/mod.rs"))
        .filter(|path| {
            fs::read_to_string(path)
                .unwrap()
                .replace("loom::sync::atomic", "")
                .contains("sync::atomic")
        })
        .collect();
    assert!(offenders.is_empty(), "{offenders:?}");
}

//! Each layer of the engine uses only what it is allowed to use.

use std::fs;
use std::path::{Path, PathBuf};

/// Every folder of `src/`, and the folders it may name. `error`, `primitive` and `slice` are for all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("shm", &["sys"]),
    ("memory", &["shm", "sys"]),
    ("sync", &["shm", "sys"]),
    ("pickle", &[]),
    ("collection", &["shm"]),
    ("channel", &["pickle", "sync", "shm", "sys"]),
    ("process", &["channel", "sync", "shm", "sys"]),
    ("pool", &["process", "channel", "sync", "shm", "sys"]),
    ("manager", &["process", "channel", "pickle", "sync", "shm", "sys"]),
];

/// Layers whose protocols are run under the model checker: they take atomics and the futex from
/// `primitive`, which has a twin for it.
const MODELLED: &[&str] = &["shm", "sync", "channel", "collection"];

/// What goes around `primitive`.
const REAL_ATOMICS: &[&str] = &["sync::atomic", "thread::futex", "SYS_futex"];

#[test]
fn layers_use_only_what_is_below_them() {
    for (layer, allowed) in MAY_USE {
        for file in files_of(layer) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("use crate::{"),
                "{} has `use crate::{{…}}`, which hides what it uses from this test",
                file.display(),
            );
            for (other, _) in MAY_USE {
                let forbidden = other != layer && !allowed.contains(other);
                assert!(
                    !(forbidden && text.contains(&format!("crate::{other}::"))),
                    "{} names `{other}`, which `{layer}` may not use",
                    file.display(),
                );
            }
        }
    }
}

#[test]
fn every_folder_is_a_layer() {
    let known = |name: &str| MAY_USE.iter().any(|(layer, _)| *layer == name);
    for entry in fs::read_dir(src()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(
            !entry.file_type().unwrap().is_dir() || known(&name),
            "`src/{name}` has no line in the table of layers",
        );
    }
}

#[test]
fn modelled_layers_use_no_atomic_that_the_model_checker_does_not_see() {
    for layer in MODELLED {
        for file in files_of(layer) {
            let text = fs::read_to_string(&file).unwrap();
            let code = without_tests(&file, &text);
            for real in REAL_ATOMICS {
                assert!(
                    !code.contains(real),
                    "{} names `{real}`; take it from `crate::primitive`",
                    file.display(),
                );
            }
        }
    }
}

/// What comes before the tests; nothing of a file of tests.
fn without_tests<'a>(file: &Path, text: &'a str) -> &'a str {
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return "";
    }
    let start = text.find("#[cfg(test)]").or_else(|| text.find("#[cfg(all(test"));
    &text[..start.unwrap_or(text.len())]
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All Rust files of a layer. At least one: a table that names what is not there checks nothing.
fn files_of(layer: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    add_rust_files(&src().join(layer), &mut found);
    assert!(!found.is_empty(), "no file in `src/{layer}`: has it moved?");
    found
}

fn add_rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| {
        panic!("cannot list {}: {error}", folder.display());
    });
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

//! `SAFETY.md` lists the files that may hold unsafe code: those files, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Opens a file for unsafe code. In two parts, so that this file is not taken for one.
const OPT_IN: &str = concat!("allow(", "unsafe_code)");

#[test]
fn safety_md_lists_the_files_with_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut actual = BTreeSet::new();
    add_files_with_unsafe_code(&root, "crates", &mut actual);
    let text = fs::read_to_string(root.join("SAFETY.md")).unwrap();
    let mut listed = BTreeSet::new();
    for file in text.lines().filter_map(listed_file) {
        assert!(!listed.contains(&file), "{file} is in SAFETY.md twice");
        listed.insert(file);
    }

    assert!(!actual.is_empty(), "no file with unsafe code: have the crates moved?");
    let missing: Vec<_> = actual.difference(&listed).collect();
    assert!(missing.is_empty(), "not in SAFETY.md: {missing:?}");
    let stale: Vec<_> = listed.difference(&actual).collect();
    assert!(stale.is_empty(), "in SAFETY.md, but without unsafe code: {stale:?}");
}

/// The file that a line of the form "- `crates/…`: reason" names.
fn listed_file(line: &str) -> Option<String> {
    let (file, reason) = line.strip_prefix("- `crates/")?.split_once("`: ")?;
    assert!(!reason.is_empty(), "no reason given for {file}");
    Some(format!("crates/{file}"))
}

fn add_files_with_unsafe_code(root: &Path, folder: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            add_files_with_unsafe_code(root, &name, found);
        } else if name.ends_with(".rs")
            && fs::read_to_string(entry.path()).unwrap().contains(OPT_IN)
        {
            found.insert(name);
        }
    }
}

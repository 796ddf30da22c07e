//! The corpus of the fuzz targets: what once led into a corner of the code does so on each run.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

#[allow(unreachable_pub, reason = "elsewhere it is a crate of its own")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![frames, handshakes, pickles, requests],
    )
}

fn frames() {
    run("frame", targets::frame);
}

fn handshakes() {
    run("handshake", targets::handshake);
}

fn pickles() {
    run("pickle", targets::pickle);
}

fn requests() {
    run("request", targets::request);
}

fn run(target: &str, function: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut count = 0;
    for file in files {
        function(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "nothing in {folder:?}");
}

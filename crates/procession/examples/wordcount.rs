//! Counts the words of a tree of text files with a pool of worker processes.
//!
//! `cargo run --release --example wordcount -- DIR [--workers N] [--sequential]`
//!
//! Map: each task counts the words of some files. Partition: the counts are brought together by
//! word. Reduce: each task adds up the counts of one word. A word is a run of ASCII letters and
//! underscores, whatever their case.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use procession::pool::Pool;
use procession::process;
use serde::{Deserialize, Serialize};

type Counts = HashMap<String, u64>;

/// Files that one task counts.
const BATCH: usize = 64;

fn main() -> ExitCode {
    procession::init(); // a worker starts this program again and does not get past this line
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (folder, workers) = arguments()?;
    let mut files = Vec::new();
    find_files(&folder, &mut files).map_err(|error| format!("cannot read {error}"))?;
    let (totals, files_of_worker) = match workers {
        Some(workers) => count_with_pool(&files, workers)?,
        None => count_sequentially(&files)?,
    };
    let mut ranked: Vec<_> = totals.into_iter().collect();
    ranked.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    for (word, count) in ranked.iter().take(20) {
        println!("{count:>9}  {word}");
    }
    println!();
    for (worker, files) in files_of_worker {
        println!("{worker} counted {files} files");
    }
    Ok(())
}

/// What one task of the map step counted.
#[derive(Serialize, Deserialize)]
struct Counted {
    worker: String,
    files: usize,
    words: Vec<(String, u64)>,
}

/// Map: the words of some files.
fn count_files(paths: Vec<PathBuf>) -> Result<Counted, String> {
    let mut counts = Counts::new();
    for path in &paths {
        count_words(path, &mut counts)?;
    }
    let worker = process::current().name().to_owned();
    Ok(Counted { worker, files: paths.len(), words: counts.into_iter().collect() })
}

/// Reduce: a word with its counts, one for each batch of files that has it.
fn add_up((word, counts): (String, Vec<u64>)) -> (String, u64) {
    (word, counts.iter().sum())
}

fn count_with_pool(
    files: &[PathBuf],
    workers: usize,
) -> Result<(Counts, BTreeMap<String, usize>), Box<dyn Error>> {
    let pool = Pool::new(workers)?;
    let mut by_word: HashMap<String, Vec<u64>> = HashMap::new();
    let mut files_of_worker = BTreeMap::new();
    // In whatever order they are done: what is here is partitioned while the rest is counted.
    for result in pool.imap_unordered(count_files, files.chunks(BATCH).map(<[_]>::to_vec))? {
        let counted = result??;
        *files_of_worker.entry(counted.worker).or_default() += counted.files;
        for (word, count) in counted.words {
            by_word.entry(word).or_default().push(count);
        }
    }
    let totals = pool.map(add_up, by_word)?;
    Ok((totals.into_iter().collect(), files_of_worker))
}

fn count_sequentially(files: &[PathBuf]) -> Result<(Counts, BTreeMap<String, usize>), String> {
    let mut counts = Counts::new();
    for path in files {
        count_words(path, &mut counts)?;
    }
    Ok((counts, BTreeMap::from([(process::current().name().to_owned(), files.len())])))
}

fn count_words(path: &Path, counts: &mut Counts) -> Result<(), String> {
    let text =
        fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let part_of_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    for word in text.split(|byte| !part_of_word(byte)).filter(|word| !word.is_empty()) {
        let word = String::from_utf8_lossy(word).to_ascii_lowercase();
        *counts.entry(word).or_default() += 1;
    }
    Ok(())
}

/// Adds every regular file below `folder`, in order of name.
fn find_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder).and_then(Iterator::collect).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Links to folders are not followed; links to files are.
        if entry.file_type().map_err(failed)?.is_dir() {
            find_files(&entry.path(), found)?;
        } else if entry.path().is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// The folder, and the number of workers unless the count is to be sequential.
fn arguments() -> Result<(PathBuf, Option<usize>), Box<dyn Error>> {
    const USAGE: &str = "usage: wordcount DIR [--workers N] [--sequential]";
    let (mut folder, mut workers) = (None, Some(process::cpu_count()));
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--sequential") => workers = None,
            Some("--workers") => {
                let number = arguments.next().unwrap_or_default();
                let number = number.to_string_lossy();
                workers = Some(number.parse().ok().filter(|&n| n > 0).ok_or_else(|| {
                    format!("--workers needs a whole number above 0, not {number:?}")
                })?);
            }
            Some(option) if option.starts_with('-') => return Err(USAGE.into()),
            _ if folder.is_some() => return Err(USAGE.into()),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    Ok((folder.ok_or(USAGE)?, workers))
}

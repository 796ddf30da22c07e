//! A counter that processes share, in the process of a manager.
//!
//! `cargo run --release --example manager`
#![allow(clippy::print_stdout, reason = "the results are what this program is for")]

use std::collections::BTreeMap;
use std::error::Error;

use procession::manager::{Manager, ProxyError};

/// How often each word was seen.
struct Words {
    counts: BTreeMap<String, u64>,
}

#[procession::shared]
impl Words {
    /// Adds what a process has counted.
    pub(crate) fn add(&mut self, counts: BTreeMap<String, u64>) {
        for (word, count) in counts {
            *self.counts.entry(word).or_default() += count;
        }
    }

    /// How often a word was seen; an error if it was not.
    pub(crate) fn count(&self, word: String) -> Result<u64, String> {
        self.counts.get(&word).copied().ok_or(format!("nobody has seen {word:?}"))
    }
}

/// What each process does: the proxy is one of its arguments.
fn count_words((words, text): (WordsProxy, String)) {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    words.add(counts).expect("the manager lives as long as the program");
}

fn main() -> Result<(), Box<dyn Error>> {
    procession::init();
    let manager = Manager::builder().start(|registry| {
        registry.register("Words", || Words { counts: BTreeMap::new() });
    })?;
    let words = WordsProxy::from(manager.connect()?.create("Words", ())?);
    let texts = ["to be or not to be", "to do is to be", "do be do"];
    let processes = texts.map(|text| procession::spawn(count_words, (words.clone(), text.into())));
    for process in processes {
        process?.join()?;
    }
    for word in ["be", "do", "question"] {
        match words.count(word.to_owned()) {
            Ok(count) => println!("{word}: {count}"),
            Err(ProxyError::Failed(reason)) => println!("{reason}"),
            Err(ProxyError::Call(failed)) => return Err(failed.into()),
        }
    }
    Ok(())
}

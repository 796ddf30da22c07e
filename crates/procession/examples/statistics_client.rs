//! Lets a program in Python do its statistics: `examples/python/statistics_server.py`.
//!
//! `cargo run --release --example statistics_client -- PORT [KEY]`
//!
//! The server prints its port. It is a plain listener of Python's `multiprocessing`; what it knows
//! of this program is that requests are tuples that begin with a name.
#![allow(clippy::print_stdout, reason = "the results are what this program is for")]

use std::env;
use std::error::Error;
use std::process::ExitCode;

use procession::channel::connection::{Address, Client, Connection, Pickle};
use serde::{Deserialize, Serialize};

/// In Python `('Mean', [2.0, 3.0])`, or `('Quantiles', {'numbers': [2.0, 3.0], 'parts': 4})`.
#[derive(Debug, Serialize)]
enum Request {
    Mean(Vec<f64>),
    Quantiles { numbers: Vec<f64>, parts: u32 },
}

/// In Python `('Number', 2.5)`, `('Numbers', [2.0, 2.5, 3.0])`, or `('Failed', 'why')`.
#[derive(Debug, PartialEq, Deserialize)]
enum Reply {
    Number(f64),
    Numbers(Vec<f64>),
    Failed(String),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("statistics_client: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let port = arguments.next().ok_or("usage: statistics_client PORT [KEY]")?.parse()?;
    let key = arguments.next().unwrap_or_else(|| "example".to_owned());
    let client = Client::new(Address::tcp("localhost", port)?).key(key);
    let python: Connection<Request, Reply, Pickle> = client.connect()?.pickles();

    let numbers: Vec<f64> = (1..=9).map(f64::from).collect();
    for request in [
        Request::Mean(numbers.clone()),
        Request::Quantiles { numbers, parts: 4 },
        Request::Mean(Vec::new()),
    ] {
        python.send(&request)?;
        match python.recv()? {
            Reply::Number(number) => println!("{number}"),
            Reply::Numbers(numbers) => println!("{numbers:?}"),
            Reply::Failed(reason) => println!("refused: {reason}"),
        }
    }
    Ok(())
}

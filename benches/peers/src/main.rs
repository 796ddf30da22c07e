//! Queues between processes beside those of other crates, in the same run.
//!
//! Each round of each contender runs in a fresh process, which forks the other side: no round sees
//! what an earlier one left, and threads of one contender are none of another's business. Rounds of
//! all contenders of a contest take turns.

mod round_trips;
mod sides;
mod streams;

use std::time::Duration;

use procession::process::Builder;
use procession_testing::{Contender, Report};
use round_trips::ANYWHERE;

/// One round: does it `count` times and returns how many operations took how long.
type Round = fn(count: u64) -> (u64, Duration);

/// Measurements of the same thing. The first contender is this project's.
struct Contest {
    name: &'static str,
    unit: &'static str,
    count: u64,
    /// Microseconds that waits of this project may spin; `None` leaves that to it.
    spin: Option<&'static str>,
    contenders: &'static [(&'static str, Round)],
}

const CONTESTS: &[Contest] = &[
    Contest {
        name: "u64",
        unit: "messages",
        count: 1_000_000,
        spin: None,
        contenders: &[
            ("Queue", streams::queue),
            ("ipc-channel", streams::ipc_channel),
            ("crossbeam-channel, threads", streams::crossbeam),
        ],
    },
    bytes::<64>("64 B", 1_000_000),
    bytes::<1024>("1 KiB", 500_000),
    bytes::<65_536>("64 KiB", 40_000),
    bytes::<1_048_576>("1 MiB", 2_000),
    Contest {
        name: "round trip",
        unit: "round trips at the median",
        count: 200_000,
        spin: None,
        contenders: &[
            ("Queue", round_trips::queue::<ANYWHERE>),
            ("iceoryx2, polling", round_trips::iceoryx2::<ANYWHERE>),
            ("ipc-channel", round_trips::ipc_channel::<ANYWHERE>),
        ],
    },
    Contest {
        name: "round trip, each on its core, spinning",
        unit: "round trips at the median",
        count: 200_000,
        // The default ceiling. By itself, a process that may use one processor does not spin.
        spin: Some("50"),
        contenders: &[
            ("Queue", round_trips::queue::<2>),
            ("iceoryx2, polling", round_trips::iceoryx2::<2>),
        ],
    },
    Contest {
        name: "round trip, each on its core, asleep",
        unit: "round trips at the median",
        count: 20_000,
        spin: Some("0"),
        contenders: &[
            ("Queue", round_trips::queue::<2>),
            ("futex by hand", round_trips::futex::<2>),
            ("ipc-channel", round_trips::ipc_channel::<2>),
        ],
    },
    Contest {
        name: "round trip, both on one core",
        unit: "round trips at the median",
        count: 50_000,
        spin: None,
        contenders: &[
            ("Queue", round_trips::queue::<1>),
            ("futex by hand", round_trips::futex::<1>),
            ("ipc-channel", round_trips::ipc_channel::<1>),
        ],
    },
];

/// Byte blocks, copied in and copied out by all contenders.
const fn bytes<const SIZE: usize>(name: &'static str, count: u64) -> Contest {
    Contest {
        name,
        unit: "messages",
        count,
        spin: None,
        contenders: &[
            ("ByteQueue", streams::byte_queue::<SIZE>),
            ("ByteQueue of 64", streams::bounded_byte_queue::<SIZE>),
            ("iceoryx2, polling", streams::iceoryx2::<SIZE>),
            ("ipc-channel", streams::ipc_bytes::<SIZE>),
        ],
    }
}

fn main() {
    procession::init();
    let mut report = Report::new("peers");
    // Part of a name; default: all. Cargo itself passes `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with("--")).collect();
    for (number, contest) in CONTESTS.iter().enumerate() {
        if wanted.is_empty() || wanted.iter().any(|part| contest.name.contains(part)) {
            hold(&mut report, number, contest);
        }
    }
    report.finish();
    streams::remove_what_iceoryx2_leaves();
}

fn hold(report: &mut Report, number: usize, contest: &Contest) {
    let count = report.scaled(contest.count);
    let contenders = contest.contenders.iter().enumerate().map(|(which, (name, _))| {
        Contender::new(format!("{}: {name}", contest.name), move || {
            in_a_fresh_process(number, which, count)
        })
    });
    report.compare(contest.unit, contenders.collect());
}

fn in_a_fresh_process(contest: usize, contender: usize, count: u64) -> (u64, Duration) {
    let builder = match CONTESTS[contest].spin {
        Some(spin) => Builder::new().env("PROCESSION_SPIN_US", spin),
        None => Builder::new(),
    };
    let round = builder.spawn(run, (contest, contender, count)).expect("the process starts");
    round.join().expect("the round ends well")
}

fn run((contest, contender, count): (usize, usize, u64)) -> (u64, Duration) {
    CONTESTS[contest].contenders[contender].1(count)
}

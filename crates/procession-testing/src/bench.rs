//! Measurements whose figures end up in a file.
//!
//! Benches are programs of their own with `harness = false`, because one that starts processes must
//! call `procession::init` first thing in `main`. Nothing here judges a figure.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};
use std::{env, fs};

/// Rounds per case: of a measurement, and of a quick look.
const ROUNDS: (usize, usize) = (7, 2);

/// The figures of one bench program.
///
/// # Examples
///
/// ```no_run
/// use std::time::Instant;
/// use procession_testing::Report;
///
/// let mut report = Report::new("sums");
/// let count = report.scaled(1_000_000);
/// report.measure("sum of u64", "additions", || {
///     let start = Instant::now();
///     std::hint::black_box((0..count).sum::<u64>());
///     (count, start.elapsed())
/// });
/// report.finish();
/// ```
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    quick: bool,
    cases: Vec<Case>,
}

/// A case of [`Report::compare`].
pub struct Contender<'a> {
    name: String,
    round: Box<dyn FnMut() -> (u64, Duration) + 'a>,
}

impl fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Case {
    name: String,
    unit: &'static str,
    /// Operations a second, one per round.
    rates: Vec<f64>,
}

impl Report {
    /// An empty report. `PROCESSION_BENCH_QUICK` in the environment asks for a quick look.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, quick: env::var_os("PROCESSION_BENCH_QUICK").is_some(), cases: Vec::new() }
    }

    /// How many operations to do where a full measurement does `count`.
    #[must_use]
    pub fn scaled(&self, count: u64) -> u64 {
        if self.quick { (count / 10).max(1) } else { count }
    }

    /// Runs a case in several rounds and prints the median.
    ///
    /// `round` returns the number of operations, which are called `unit`, and the time they took.
    ///
    /// # Panics
    ///
    /// Panics if a round took no time at all.
    pub fn measure(
        &mut self,
        case: impl Into<String>,
        unit: &'static str,
        mut round: impl FnMut() -> (u64, Duration),
    ) {
        let rates = (0..self.rounds()).map(|_| rate(round())).collect();
        let case = Case { name: case.into(), unit, rates };
        eprintln!("{}", case.line());
        self.cases.push(case);
    }

    /// Runs several cases in turn, so that whatever else the machine does hits all of them, and
    /// prints how the first does beside each of the others: the ratio of the medians, and the
    /// smallest and largest ratio within a round.
    ///
    /// # Panics
    ///
    /// Panics if a round took no time at all.
    pub fn compare(&mut self, unit: &'static str, mut contenders: Vec<Contender<'_>>) {
        let mut rates = vec![Vec::new(); contenders.len()];
        for number in 0..self.rounds() {
            let mut order: Vec<_> = (0..contenders.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for which in order {
                rates[which].push(rate((contenders[which].round)()));
            }
        }
        let cases = contenders.into_iter().zip(rates);
        let cases = cases.map(|(contender, rates)| Case { name: contender.name, unit, rates });
        let first = self.cases.len();
        self.cases.extend(cases);
        for case in &self.cases[first..] {
            eprintln!("{}; {}", case.line(), self.cases[first].beside(case));
        }
    }

    fn rounds(&self) -> usize {
        if self.quick { ROUNDS.1 } else { ROUNDS.0 }
    }

    /// Writes the file: `rust-NAME.json` in `PROCESSION_BENCH_OUT`, or in `target/bench`.
    ///
    /// # Panics
    ///
    /// Panics if nothing was measured or the file cannot be written.
    pub fn finish(self) {
        assert!(!self.cases.is_empty(), "a report without a case reports nothing");
        let folder = env::var_os("PROCESSION_BENCH_OUT").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench")),
            PathBuf::from,
        );
        let quick = if self.quick { "-quick" } else { "" };
        let path = folder.join(format!("rust-{}{quick}.json", self.name));
        fs::create_dir_all(&folder).expect("the folder for the figures can be made");
        fs::write(&path, self.to_json()).expect("the figures can be written");
        eprintln!("raw figures: {}", path.display());
    }

    fn to_json(&self) -> String {
        let mut json = String::from("{\n");
        let command = command();
        let seconds =
            since_1970().map_or_else(|| "null".to_owned(), |time| time.as_secs().to_string());
        let _ = writeln!(json, "  \"command\": {},", quoted(&command));
        let _ = writeln!(json, "  \"seconds since 1970\": {seconds},");
        let _ = writeln!(json, "  \"processor\": {},", quoted(&processor()));
        let _ = writeln!(json, "  \"processors\": {},", processors());
        let _ = writeln!(json, "  \"system\": {},", quoted(&output_of("uname", &["-sr"])));
        let _ = writeln!(json, "  \"compiler\": {},", quoted(&output_of("rustc", &["--version"])));
        let _ = writeln!(json, "  \"quick\": {},", self.quick);
        let cases: Vec<_> = self.cases.iter().map(Case::to_json).collect();
        let _ = writeln!(json, "  \"results\": [\n{}\n  ]\n}}", cases.join(",\n"));
        json
    }
}

/// Operations a second.
fn rate((count, time): (u64, Duration)) -> f64 {
    assert!(!time.is_zero(), "a round that took no time measures nothing");
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = count as f64;
    count / time.as_secs_f64()
}

impl<'a> Contender<'a> {
    /// One of the cases that [`Report::compare`] runs in turn; `round` as for [`Report::measure`].
    #[must_use]
    pub fn new(case: impl Into<String>, round: impl FnMut() -> (u64, Duration) + 'a) -> Self {
        Self { name: case.into(), round: Box::new(round) }
    }
}

impl Case {
    fn median(&self) -> f64 {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    fn line(&self) -> String {
        let (median, unit) = (self.median(), self.unit);
        format!("{:<46}{median:>14.0} {unit} per second, {:.3} µs each", self.name, 1e6 / median)
    }

    /// How this case does beside another one.
    fn beside(&self, other: &Self) -> String {
        let ratios: Vec<_> = self.rates.iter().zip(&other.rates).map(|(a, b)| a / b).collect();
        let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = self.median() / other.median();
        format!("the first is {ratio:.2} times that ({smallest:.2} to {largest:.2})")
    }

    fn to_json(&self) -> String {
        let rates: Vec<_> = self.rates.iter().map(|rate| format!("{rate:.1}")).collect();
        format!(
            "    {{\"case\": {}, \"unit\": {}, \"rates\": [{}], \"median\": {:.1}}}",
            quoted(&self.name),
            quoted(&format!("{} per second", self.unit)),
            rates.join(", "),
            self.median(),
        )
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[allow(clippy::disallowed_methods, reason = "the date of the measurement, not a deadline")]
fn since_1970() -> Option<Duration> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split_once(':').map_or("", |(_, name)| name).trim().to_owned()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// The command line, without the folders of this machine and what the build adds to the name.
fn command() -> String {
    let mut words: Vec<_> = env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = program.rsplit('/').next().unwrap_or_default();
        let plain = name.rsplit_once('-').filter(|(_, hash)| {
            hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        *program = plain.map_or(name, |(plain, _)| plain).to_owned();
    }
    words.join(" ")
}

/// What a command prints; nothing if it cannot be run.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn report() -> Report {
        let mut report = Report { name: "test", quick: true, cases: Vec::new() };
        report.measure("a \"case\"\n", "things", || (10, Duration::from_secs(2)));
        report
    }

    #[test]
    fn rate_is_operations_per_second() {
        assert!((report().cases[0].median() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn text_in_the_file_is_quoted() {
        let json = report().to_json();
        assert!(
            json.contains(r#""case": "a \"case\"\u000a", "unit": "things per second""#),
            "{json}"
        );
    }

    #[test]
    fn contenders_take_turns_and_are_set_beside_the_first() {
        let order = RefCell::new(String::new());
        let contender = |name: char, seconds| {
            let order = &order;
            Contender::new(name, move || {
                order.borrow_mut().push(name);
                (12, Duration::from_secs(seconds))
            })
        };
        let mut report = Report { name: "test", quick: true, cases: Vec::new() };
        report.compare("things", vec![contender('a', 1), contender('b', 3)]);
        assert_eq!(*order.borrow(), "abba");
        let ratio = report.cases[0].beside(&report.cases[1]);
        assert_eq!(ratio, "the first is 3.00 times that (3.00 to 3.00)");
    }

    #[test]
    fn quick_look_does_a_tenth() {
        assert_eq!(report().scaled(1000), 100);
        assert_eq!(report().scaled(3), 1);
    }
}

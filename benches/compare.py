"""Measure `procession` beside `multiprocessing` and its peers: `make bench`.

Every measurement runs in a process of its own, the contenders in turn, so that whatever else the
machine does hits all of them. Prints the median of the rounds, the ratio of the medians, and the
smallest and largest ratio that any two runs of a round gave. All raw figures go to a JSON file,
with the machine, the versions and the command.
"""

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

import cases
import managers
import messages
import pools

HERE = pathlib.Path(__file__).resolve().parent
MODULES = ("multiprocessing", "procession")
# What some cases need that the package does not: a word of their contenders or of their names.
NEEDED = {"faster-fifo": "faster_fifo", "NumPy": "numpy"}
NEEDED |= {name: name for name in ("joblib", "loky", "mpire", "pebble")}
LIMIT = 300  # seconds; only a deadlock takes this long
# Each case, and the program that measures it.
PARTS = {
    "cases.py": cases.CASES,
    "messages.py": messages.CASES,
    "pools.py": pools.CASES,
    "managers.py": managers.CASES,
}
PROGRAMS = {case: program for program, part in PARTS.items() for case in part}
CASES = cases.CASES | messages.CASES | pools.CASES | managers.CASES
PEERS = messages.PEERS | pools.PEERS


def missing(*words):
    """The packages that these words ask for and that are not installed."""
    return {
        word
        for word, package in NEEDED.items()
        if any(word in asking for asking in words) and importlib.util.find_spec(package) is None
    }


def measure(contender, case, scale):
    """Return operations a second."""
    # Packages are compiled when they are installed, and the standard library is; a checkout is when
    # it is first imported, unless the environment forbids that.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, str(HERE / PROGRAMS[case]), contender, case, str(scale)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    result = json.loads(done.stdout)
    return result["operations"] / result["seconds"]


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def asked_for():
    """The arguments but for the place of the result, which is this machine's."""
    arguments = sys.argv[1:]
    if "--out" in arguments:
        at = arguments.index("--out")
        del arguments[at : at + 2]
    return arguments


def surroundings():
    revision = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "command": shlex.join(["python", "benches/compare.py", *asked_for()]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "revision": revision.stdout.strip() or None,
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": sys.version,
    }


def compare(case, rounds, scale):
    """Run one case in all rounds; return what goes into the file."""
    contenders = [*MODULES, *(peer for peer in PEERS.get(case, ()) if not missing(peer))]
    rates = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            rates[contender].append(measure(contender, case, scale))
    medians = {contender: statistics.median(rates[contender]) for contender in contenders}
    ours = medians["procession"]
    others = [contender for contender in contenders if contender != "procession"]
    return {
        "case": case,
        "unit": f"{CASES[case][3]} per second",
        "bytes per operation": CASES[case][4],
        "rates": rates,
        "medians": medians,
        "ratios": {other: ours / medians[other] for other in others},
        "ratio ranges": {other: extremes(rates["procession"], rates[other]) for other in others},
    }


def extremes(ours, theirs):
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return [min(ratios), max(ratios)]


def rate(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def short(ratio):
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def rows(result):
    """A line for each of the others."""
    ours, size = result["medians"]["procession"], result["bytes per operation"]
    for other, ratio in result["ratios"].items():
        name = result["case"] if other == "multiprocessing" else f"  beside {other}"
        low, high = result["ratio ranges"][other]
        text = f"{name:<32}{rate(result['medians'][other]):>14}{rate(ours):>14}"
        text += f"{short(ratio):>8} ({short(low)} to {short(high)})"
        yield text + (f"  {ours * size / 1e9:.2f} GB/s" if size else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="part of a name; default: all")
    options = parser.parse_args()
    rounds, scale = (2, 0.1) if options.quick else (options.rounds, 1.0)
    chosen = [name for name in CASES if not options.cases or any(c in name for c in options.cases)]
    if not chosen:
        parser.error(f"no such case; there are: {', '.join(CASES)}")
    absent = missing(*chosen, *(peer for case in chosen for peer in PEERS.get(case, ())))
    if absent:
        print(f"not measured: {', '.join(sorted(absent))}; see benches/requirements.txt")
    chosen = [case for case in chosen if not missing(case)]
    if not chosen:
        parser.error("nothing is left to measure")

    report = surroundings() | {"rounds": rounds, "scale": scale, "results": []}
    report["not measured"] = sorted(absent)
    print(f"{report['processor']}, {report['processors']} processors; operations a second")
    print(f"{'':<32}{'other':>14}{'procession':>14}{'ratio':>8}")
    for case in chosen:
        result = compare(case, rounds, scale)
        report["results"].append(result)
        print("\n".join(rows(result)), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / ("python-quick.json" if options.quick else "python.json")
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"raw figures: {path}")


if __name__ == "__main__":
    main()

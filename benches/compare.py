"""Measure `procession` beside `multiprocessing`: `make bench`.

Every measurement runs in a process of its own, the two modules in turn, so that whatever else the
machine does hits both. Prints the median of the rounds, the ratio of the medians, and the smallest
and largest ratio that any two neighbouring runs gave. All raw figures go to a JSON file, with the
machine, the versions and the command.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from cases import CASES

HERE = pathlib.Path(__file__).resolve().parent
MODULES = ("multiprocessing", "procession")
LIMIT = 300  # seconds; only a deadlock takes this long


def measure(module, case, scale):
    """Return operations a second."""
    done = subprocess.run(
        [sys.executable, str(HERE / "cases.py"), module, case, str(scale)],
        stdout=subprocess.PIPE,
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


def surroundings():
    revision = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join([sys.executable, *sys.argv]),
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
    rates = {module: [] for module in MODULES}
    for number in range(rounds):
        for module in MODULES if number % 2 == 0 else reversed(MODULES):
            rates[module].append(measure(module, case, scale))
    theirs, ours = (statistics.median(rates[module]) for module in MODULES)
    pairs = [our / their for their, our in zip(*rates.values(), strict=True)]
    return {
        "case": case,
        "unit": f"{CASES[case][3]} per second",
        "bytes per operation": CASES[case][4],
        "rates": rates,
        "medians": {"multiprocessing": theirs, "procession": ours},
        "ratio": ours / theirs,
        "ratio range": [min(pairs), max(pairs)],
    }


def row(result):
    theirs, ours = (result["medians"][module] for module in MODULES)
    low, high = result["ratio range"]
    text = f"{result['case']:<28}{theirs:>14,.0f}{ours:>14,.0f}"
    text += f"{result['ratio']:>8.1f} ({low:.1f} to {high:.1f})"
    if size := result["bytes per operation"]:
        text += f"  {ours * size / 1e9:.2f} GB/s"
    return text


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

    report = surroundings() | {"rounds": rounds, "scale": scale, "results": []}
    print(f"{report['processor']}, {report['processors']} processors; operations a second")
    print(f"{'':<28}{'multiprocessing':>14}{'procession':>13}{'ratio':>8}")
    for case in chosen:
        result = compare(case, rounds, scale)
        report["results"].append(result)
        print(row(result), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / ("python-quick.json" if options.quick else "python.json")
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"raw figures: {path}")


if __name__ == "__main__":
    main()

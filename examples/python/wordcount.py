"""Count the words of a tree of text files with a pool of worker processes.

    python examples/python/wordcount.py DIR [--workers N] [--sequential]
    python -m procession examples/python/wordcount.py DIR

Map: each task counts the words of some files. Partition: the counts are brought together by word.
Reduce: each task adds up the counts of one word. A word is a run of ASCII letters and underscores,
whatever their case.
"""

import argparse
import collections
import heapq
import multiprocessing
import os
import re
import sys

WORD = re.compile("[A-Za-z_]+")
SHOWN = 20
BATCH = 100  # files that one task counts


def find_files(root):
    """List every regular file below `root`, in order of name."""

    def fail(error):
        raise error

    found = []
    for folder, _, names in os.walk(root, onerror=fail):
        paths = (os.path.join(folder, name) for name in names)
        found.extend(path for path in paths if os.path.isfile(path))
    return sorted(found)


def words_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [word.lower() for word in WORD.findall(file.read())]
    except OSError as error:  # one from `read` does not say which file
        raise OSError(error.errno, error.strerror, path) from error


def count_files(paths):
    """Map: the words of some files, how many files, and the name of the process that counted."""
    counts = collections.Counter()
    for path in paths:
        counts.update(words_of(path))
    return multiprocessing.current_process().name, len(paths), dict(counts)


def add_up(item):
    """Reduce: the counts of one word, one for each batch of files that has it."""
    word, counts = item
    return word, sum(counts)


def count_with_pool(files, workers):
    """Return the count of each word, and how many files each worker took."""
    by_word = collections.defaultdict(list)
    files_of_worker = collections.Counter()
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with multiprocessing.Pool(workers) as pool:
        for worker, number, counts in pool.map(count_files, batches, chunksize=1):
            files_of_worker[worker] += number
            for word, count in counts.items():
                by_word[word].append(count)
        return dict(pool.map(add_up, by_word.items())), files_of_worker


def count_sequentially(files):
    """Return the count of each word, and how many files this process took."""
    totals = collections.Counter()
    for path in files:
        totals.update(words_of(path))
    return totals, {multiprocessing.current_process().name: len(files)}


def print_table(totals, files_of_worker):
    for word, count in heapq.nsmallest(SHOWN, totals.items(), key=lambda item: (-item[1], item[0])):
        print(f"{count:>9}  {word}")
    print()
    for worker, files in sorted(files_of_worker.items()):
        print(f"{worker} counted {files} files")


def worker_count(text):
    workers = int(text)
    if workers < 1:
        raise ValueError
    return workers


worker_count.__name__ = "number of workers"  # for argparse's message


def main():
    parser = argparse.ArgumentParser(description="Count the words of a tree of text files.")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--workers", metavar="N", type=worker_count, help="default: one per CPU")
    parser.add_argument("--sequential", action="store_true", help="without worker processes")
    options = parser.parse_args()
    try:
        files = find_files(options.folder)
        if options.sequential:
            totals, files_of_worker = count_sequentially(files)
        else:
            totals, files_of_worker = count_with_pool(files, options.workers)
    except OSError as error:
        print(f"wordcount: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print_table(totals, files_of_worker)
    return 0


if __name__ == "__main__":
    sys.exit(main())

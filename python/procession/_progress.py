"""Bars that show how far a pool has come, where there is somebody to see them."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from procession.pool import IMapIterator, MapResult

# Seconds between two looks at how far it has come.
_INTERVAL = 0.1


def _bar(total: int | None, label: bool | str) -> Any:
    """Return a bar; `None` where there is no tqdm, or nobody who sees it."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return tqdm(total=total, desc=label if isinstance(label, str) else None)


def watch(result: MapResult[Any], label: bool | str) -> None:
    """Block until the result is ready, and show how many of its tasks are done."""
    _, total = result._progress()
    bar = _bar(total, label)
    if bar is None:
        return
    with bar:
        while not result.ready():
            result.wait(_INTERVAL)
            done, _ = result._progress()
            bar.update(done - bar.n)
        bar.update(total - bar.n)


def iterator(results: IMapIterator[Any], total: int | None, label: bool | str) -> Any:
    """Return an iterator over the same results that shows how many were asked for."""
    bar = _bar(total, label)
    return results if bar is None else _Watched(results, bar)


class _Watched:
    def __init__(self, results: IMapIterator[Any], bar: Any) -> None:
        self._results = results
        self._bar = bar

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, as the iterator behind this does."""
        try:
            value = self._results.next(timeout)
        except StopIteration:
            self._bar.close()
            raise
        self._bar.update()
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._results, name)

"""The worker processes of a pool: how they are started, and what they do."""

from __future__ import annotations

import sys
import traceback

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._procession import Child, WorkerBoot


class Launcher:
    """Starts the workers of a pool. Knows nothing of the pool, which must be free to go."""

    def __init__(
        self, process: Callable[..., Any], ctx: Any, workers: list[Any], work: tuple[Any, ...]
    ) -> None:
        self._process = process
        self._ctx = ctx
        self._workers = workers
        self._work = work

    def __call__(self, boot: WorkerBoot) -> tuple[Child, str]:
        worker = self._process(self._ctx, target=_work, args=(boot, *self._work))
        worker.name = worker.name.replace("Process", "PoolWorker")
        worker.daemon = True
        worker.start()
        # Whoever looks at the list sees the old workers or the new ones.
        self._workers[:] = [*(one for one in self._workers if one.exitcode is None), worker]
        return worker._popen._child, worker.name


def _work(
    boot: WorkerBoot,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    maxtasks: int | None,
) -> None:
    """Be a worker."""
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            boot.start_failed(traceback.format_exc())
            sys.exit(1)
    boot.serve(maxtasks)

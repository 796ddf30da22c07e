"""Exceptions: those of the original, and what has no counterpart there."""

from procession import context

__all__ = [
    "BrokenPoolError",
    "OwnerDiedError",
    "ProcessError",
    "TasksLostError",
    "TimeoutError",
    "WorkerDiedError",
]

ProcessError = context.ProcessError
TimeoutError = context.TimeoutError


class WorkerDiedError(ProcessError):
    """The worker process that carried out a task died.

    Attributes:
        pid: Process id of the worker.
        exitcode: Its exit code, negative for a signal, as in `Process.exitcode`.
        task: Index of the task among those of the same call.
    """

    def __init__(self, message: str, pid: int, exitcode: int, task: int) -> None:
        super().__init__(message, pid, exitcode, task)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task

    def __str__(self) -> str:
        return str(self.args[0])


class TasksLostError(ProcessError):
    """A process died that had got objects from a `JoinableQueue` and not called `task_done`.

    They count as done from now on.

    Attributes:
        pid: Process id of the dead one; of the last, if there were several.
        tasks: How many objects were lost.
    """

    def __init__(self, message: str, pid: int, tasks: int) -> None:
        super().__init__(message, pid, tasks)
        self.pid = pid
        self.tasks = tasks

    def __str__(self) -> str:
        return str(self.args[0])


class BrokenPoolError(ProcessError):
    """No worker of a pool could start; the text says why."""


class OwnerDiedError(ProcessError):
    """A lock was held by a process that was killed; what it protects may be half-changed."""

"""Exceptions: those of the original, and what has no counterpart there."""

from procession import context

__all__ = [
    "BrokenPoolError",
    "OwnerDiedError",
    "ProcessError",
    "TaskTimeoutError",
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
        out_of_memory: Whether the kernel was ending processes of the same control group for want of
            memory; then this was most likely one of them.
    """

    def __init__(
        self, message: str, pid: int, exitcode: int, task: int, out_of_memory: bool = False
    ) -> None:
        super().__init__(message, pid, exitcode, task, out_of_memory)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.out_of_memory = out_of_memory

    def __str__(self) -> str:
        return str(self.args[0])


class TaskTimeoutError(TimeoutError):
    """A task took longer than its own `timeout`; its worker was killed and replaced.

    Attributes:
        pid: Process id of the worker.
        timeout: How long the task may take, in seconds.
        task: Index of the task among those of the same call.
    """

    def __init__(self, message: str, pid: int, timeout: float, task: int) -> None:
        super().__init__(message, pid, timeout, task)
        self.pid = pid
        self.timeout = timeout
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

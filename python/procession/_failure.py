"""How an exception of a pool's task travels from the worker to the caller."""

from __future__ import annotations

import contextlib
import pickle
import traceback

from procession import _by_value, _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any


def describe(error: BaseException) -> tuple[str, bytes]:
    """Return the traceback and the pickled exception."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = "".join(lines).encode("utf-8", "backslashreplace").decode()
    try:
        return text, _by_value.dumps(error)
    except Exception as reason:
        return text, _by_value.dumps(_encoding_error(reason, error))


def describe_unsendable(error: Exception, value: object) -> tuple[str, bytes]:
    """Return the same for a result that did not pickle because of `error`."""
    wrapped: Any = _encoding_error(error, value)
    with contextlib.suppress(Exception):
        _by_value.dumps(error)
        # An executor raises this one instead.
        wrapped.reason = error
    return describe(wrapped)


def rebuild(text: str, pickled: bytes) -> BaseException:
    """Return the exception, with the traceback as its cause."""
    error: Any
    try:
        error = pickle.loads(pickled)
    except Exception as reason:
        # It pickles, but what it pickles to cannot be unpickled: say that, and what it was.
        error = reason
    if not isinstance(error, BaseException):
        error = TypeError(f"a task raised what unpickles as {type(error).__name__}")
    raised: BaseException = error
    raised.__cause__ = _pool().RemoteTraceback(f'\n"""\n{text}"""')
    return raised


def _encoding_error(error: Exception, value: object) -> Exception:
    wrapped: Exception = _pool().MaybeEncodingError(error, value)
    return wrapped


def _pool() -> Any:
    return _stdlib.load("pool")

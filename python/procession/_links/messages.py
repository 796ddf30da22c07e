"""What requests and replies are, and how they are written and read.

Its reader or writer may be a program that knows the standard library alone; then nothing in a
message may need this package. Clients and servers use this; it knows of no connection in
particular.
"""

from __future__ import annotations

import threading

from procession import _stdlib
from procession._procession import Connection, loads

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NOTHING", "convert_to_error", "dispatch", "read", "request", "result_of", "wire"]


NOTHING: dict[str, Any] = {}
_ORIGINAL = b"multiprocessing.managers"


class _Wire(threading.local):
    """What a thread is writing for."""

    # Whether the reader may be a program that knows the standard library alone.
    plain = False
    # Proxies in what is written, to be kept until the reader has had the time to use them; None
    # where the writer keeps them anyhow.
    sent: list[Any] | None = None


wire = _Wire()


def read(message: bytes) -> Any:
    """Return what a message of a program says that may know the standard library alone.

    Its proxies become proxies of this package, whatever the name of their module stands for here.
    """
    if _ORIGINAL not in message:
        return loads(message)
    import io

    return _unpickler()(io.BytesIO(message)).load()


def _unpickler() -> Any:
    import pickle

    from procession import managers

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == _ORIGINAL.decode():
                return getattr(managers, name)
            return super().find_class(module, name)

    return Unpickler


def dispatch(
    c: Any,
    id: Any,  # noqa: A002
    methodname: str,
    args: Any = (),
    kwds: Any = NOTHING,
) -> Any:
    """Send a request through a connection and return the result."""
    return result_of(*request(c, (id, methodname, args, kwds)))


def request(c: Any, message: Any) -> Any:
    """Send a request that anybody can read; return the kind of the reply and what is in it."""
    wire.plain = True
    try:
        c.send(message)
    finally:
        wire.plain = False
    # A connection with a serializer of its own has its own way of reading.
    return read(c.recv_bytes()) if isinstance(c, Connection) else c.recv()


def result_of(kind: str, result: Any) -> Any:
    """Return what a reply holds, or raise it."""
    if kind == "#RETURN":
        return result
    try:
        raise convert_to_error(kind, result)
    finally:
        del result  # the exception's traceback refers to this frame


def convert_to_error(kind: str, result: Any) -> BaseException:
    """Return the exception that a reply of this kind stands for."""
    if kind == "#ERROR":
        error: BaseException = result
        return error
    if kind not in ("#TRACEBACK", "#UNSERIALIZABLE"):
        return ValueError(f"Unrecognized message type {kind!r}")
    if not isinstance(result, str):
        raise TypeError(f"Result {result!r} (kind '{kind}') type is {type(result)}, not str")
    remote: type[Exception] = _stdlib.load("managers").RemoteError
    return remote(f"Unserializable message: {result}\n" if kind == "#UNSERIALIZABLE" else result)

"""The way to a server of the standard library: connections that are one per thread, and more.

Only a process that has met such a server imports this.
"""

from __future__ import annotations

import os
import threading

from procession import _stdlib
from procession._links.messages import NOTHING, dispatch, request

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Plain"]


class Plain:
    """Connections with a server of the standard library."""

    def __init__(self, address: Any, authkey: bytes, connect: Any) -> None:
        self.address = address
        self.authkey = authkey
        self._connect_with = connect
        util: Any = _stdlib.load("util")
        self._finalize = util.Finalize
        self._here: Any = util.ForkAwareLocal()

    def is_usable(self) -> bool:
        """Say that it can be tried."""
        return True

    def close(self) -> None:
        """Close this thread's connection."""
        connection = self._here.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def call(self, ident: str | None, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return the kind of the reply and what is in it."""
        connection = getattr(self._here, "connection", None) or self._connection()
        return request(connection, (ident, name, args, kwds))

    def function(self, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return what a function of the server itself returns."""
        connection = self._connect_with(self.address, authkey=self.authkey)
        try:
            return dispatch(connection, None, name, args, kwds)
        finally:
            connection.close()

    def create(self, args: Any, kwds: Any) -> tuple[str, Any]:
        """Have the server make an object; return its ident and the names of its methods."""
        ident, exposed = self.function("create", args, kwds)
        return ident, exposed

    def adopt(self, _ident: str) -> None:
        """Do nothing: the server has counted the reference."""

    def refer(self, ident: str) -> Any:
        """Refer to an object; return what gives that up when it is called or dropped."""
        self.function("incref", (ident,))
        holder = _Holder()
        # Also when the program ends: this server does not notice that.
        holder.finalizer = self._finalize(
            holder, Plain._give_up_quietly, args=(self, ident, os.getpid()), exitpriority=10
        )
        return holder

    def give_up(self, ident: str) -> None:
        """Give one reference up."""
        self.function("decref", (ident,))

    def _give_up_quietly(self, ident: str, owner: int) -> None:
        if os.getpid() != owner:
            return
        try:
            self.give_up(ident)
        except Exception as error:
            _stdlib.load("util").debug("... decref failed %s", error)

    def _connection(self) -> Any:
        connection = self._connect_with(self.address, authkey=self.authkey)
        name = _stdlib.process.current_process().name
        if threading.current_thread() is not threading.main_thread():
            name += "|" + threading.current_thread().name
        dispatch(connection, None, "accept_connection", (name,))
        self._here.connection = connection
        return connection


class _Holder:
    """Something for a finalizer to watch."""

    finalizer: Any = None

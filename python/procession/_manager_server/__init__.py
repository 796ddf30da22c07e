"""The server of a manager: how it starts and ends, and the functions that clients may call.

`requests` says what the messages of clients mean, `objects` has what they refer to; sockets,
threads and reference counts are the engine's. Nothing here knows of managers.
"""

# ruff: noqa: ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import os
import sys
import threading
import time

from procession import _process, _stdlib, connection
from procession._adopted import Adopted
from procession._manager_server.objects import QUICK, number_of
from procession._manager_server.requests import CODECS, Requests
from procession._procession import ManagerServer, loads
from procession._proxies import listener_client, public_methods, settle_in_managers
from procession._served import CallerGoneError, calling, served

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

__all__ = ["CODECS", "Server", "free_address"]

_process_of: Any = _stdlib.process
_util: Any = _stdlib.util

# Seconds that threads of a server which stops may take for what they are doing.
_PATIENCE = 0.2


def free_address() -> str:
    """Return an address that nobody uses, and that leaves no file behind."""
    return f"\0procession-{os.getpid()}-{os.urandom(6).hex()}"


def _holder(c: Any) -> int | None:
    holder: int | None = None if c is None else c.holder
    return holder


class _StopEvent:
    """`threading.Event` that is set when the server is to stop."""

    def __init__(self, engine: ManagerServer) -> None:
        self._engine = engine

    def is_set(self) -> bool:
        """Say whether the server is to stop."""
        return self._engine.wait(0)

    def set(self) -> None:
        """Stop the server."""
        self._engine.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server is to stop."""
        return self._engine.wait(timeout)


class _Door:
    """The server's listener: what can be done with it by itself."""

    def __init__(self, engine: ManagerServer, address: Any, unlink: Any) -> None:
        self._engine = engine
        self.address = address
        self._unlink = unlink

    def close(self) -> None:
        """Let no more clients in."""
        self._engine.close()
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()


class Server(Requests):
    """Holds the objects of a manager and serves them to its proxies.

    Args:
        registry: What can be made, by `typeid`.
        address: Where to listen; None for an address that nobody uses.
        authkey: What clients must prove to know.
        serializer: `"pickle"` or `"xmlrpclib"`.
        options: What the engine's server is told besides; see `BaseManager`.
    """

    # A class of a program that replaces some has not this in its own body.
    _has_quick_functions = True

    public: Sequence[str] = [
        "shutdown",
        "create",
        "accept_connection",
        "get_methods",
        "debug_info",
        "number_of_objects",
        "dummy",
        "incref",
        "decref",
        "adopt",
    ]

    def __init__(
        self,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        *,
        options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.authkey = _process.authkey(authkey)
        self._own_listener: Any = None
        if serializer not in CODECS:
            # One of the program's own, which the engine can make nothing of.
            from procession._own_listener import OwnListener

            listen, connect = listener_client[serializer]
            self._own_listener = OwnListener(self, listen(address=address, backlog=128), connect)
            address = None
        address = address or free_address()
        super().__init__(self._listen(address, dict(options or {})), registry, serializer)
        self.stop_event = _StopEvent(self._engine)
        self._threads: set[threading.Thread] = set()

    def _listen(self, address: Any, options: dict[str, Any]) -> ManagerServer:
        """Return the engine's server, which lets clients in once it is started."""
        tls = connection._native_tls(options.pop("tls", None), address)
        engine = ManagerServer(address, bytes(self.authkey), tls, **options)
        # An abstract name stays as it was given, so that tokens of both sides are equal.
        self.address = address if connection._is_abstract(address) else engine.address
        if self._own_listener is not None:
            engine.close()
            self.address = self._own_listener.address
        unlink = None
        if connection.address_type(address) == "AF_UNIX" and not connection._is_abstract(address):
            unlink = connection._remove_at_exit(self, address)  # type: ignore[arg-type]
        self.listener = _Door(engine, self.address, unlink)
        return engine

    def serve_forever(self) -> NoReturn:
        """Serve until somebody calls `shutdown`, and then end the program or thread."""
        _process_of.current_process()._manager_server = self
        try:
            self._serve()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            self._end()
            if sys.stdout != sys.__stdout__:
                _util.debug("resetting stdout, stderr")
                sys.stdout = sys.__stdout__
                sys.stderr = sys.__stderr__
            sys.exit(0)

    def _serve_until_end_of(self, parent: Any) -> NoReturn:
        """Do what `serve_forever` does, and end with the process that started this one."""
        self._parent = parent
        self.serve_forever()

    # The process to end with.
    _parent: Any = None
    # What the processes of the tree know of this server, if one of them has started it.
    _home: Any = None

    def _serve(self) -> None:
        self._engine.start(self, QUICK)
        if self._own_listener is not None:
            self._own_listener.start()
        if self._home is not None and self._home.has_ended():
            return  # the manager was shut down before anybody could have called
        if self._parent is None:
            self._engine.wait()
        else:
            connection.wait([self._engine, self._parent.sentinel])

    def _end(self) -> None:
        if self._home is not None:
            self._home.end()
        self._engine.stop()
        self.listener.close()
        if self._own_listener is not None:
            self._own_listener.close()
        # Those that carry out a call end with that, if it ends.
        deadline = time.monotonic() + _PATIENCE
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start_thread(self, work: Any) -> None:
        """Start one of the threads that answer requests."""
        thread = threading.Thread(target=self._run_thread, args=(work,), daemon=True)
        thread.start()

    def _run_thread(self, work: Any) -> None:
        self._threads.add(threading.current_thread())
        calling.is_connected = self._engine.is_connected
        calling.may_block = self._engine.may_block
        try:
            work.run()
        finally:
            self._threads.discard(threading.current_thread())

    # Functions that clients may call.

    def dummy(self, c: Any) -> None:
        """Do nothing, for a client that wants to know whether there is a server."""

    def accept_connection(self, c: Any, name: str) -> None:
        """Let the connection carry calls of methods from now on."""
        _util.debug("serving %r", name)

    def create(self, c: Any, typeid: str, /, *args: Any, **kwds: Any) -> Any:
        """Make an object; return its ident and the names of its methods."""
        maker, exposed, method_to_typeid, _proxytype = self.registry[typeid]
        if maker is None:
            if kwds or len(args) != 1:
                raise ValueError("Without callable, must have one non-keyword argument")
            obj = args[0]
        else:
            obj = served(maker)(*args, **kwds)
        if exposed is None:
            exposed = public_methods(obj)
        if method_to_typeid is not None:
            if not isinstance(method_to_typeid, dict):
                raise TypeError(
                    f"Method_to_typeid {method_to_typeid!r}: type "
                    f"{type(method_to_typeid)!s}, not dict"
                )
            exposed = list(exposed) + list(method_to_typeid)
        ident = f"{id(obj):x}"
        _util.debug("%r callable returned object with id %r", typeid, ident)
        with self.mutex:
            known = self.id_to_obj.get(ident)
            self.id_to_obj[ident] = (obj, set(exposed), method_to_typeid)
            if not self._engine.refer(_holder(c), id(obj)):
                if known is None:
                    del self.id_to_obj[ident]
                raise CallerGoneError
        return ident, tuple(exposed)

    def get_methods(self, c: Any, token: Any) -> tuple[str, ...]:
        """Return the names of the methods of an object."""
        return tuple(self.id_to_obj[token.id][1])

    def number_of_objects(self, c: Any) -> int:
        """Return how many objects other processes refer to."""
        return len(self._engine.all_references())

    def debug_info(self, c: Any) -> str:
        """Return two lines of text for each object."""
        lines = []
        counts = self.id_to_refcount
        for ident in sorted(counts):
            if ident in self.id_to_obj:
                lines.append(f"  {ident}:       refcount={counts[ident]}")
                lines.append(f"    {str(self.id_to_obj[ident][0])[:75]}")
        return "\n".join(lines)

    def incref(self, c: Any, ident: str) -> None:
        """Count one more reference."""
        with self.mutex:
            number = number_of(ident)
            if self._engine.refer_to_known(_holder(c), number):
                return
            if ident not in self.id_to_local_proxy_obj:
                raise KeyError(ident)
            self.id_to_obj[ident] = self.id_to_local_proxy_obj[ident]
            self._engine.refer(_holder(c), number)

    def adopt(self, c: Any, typeid: str, ident: str, pickled: bytes) -> None:
        """Hold an object in shared memory of the tree, for those who know it by a token."""
        obj = Adopted(loads(pickled))
        with self.mutex:
            try:
                entry = self._find(ident)
            except KeyError:
                entry = self._entry(typeid, obj)
            self.id_to_obj[ident] = entry
            if not self._engine.refer(_holder(c), number_of(ident)):
                raise CallerGoneError

    def decref(self, c: Any, ident: str) -> None:
        """Count one reference less; drop the object if it was the last one."""
        number = number_of(ident)
        if not self._engine.references(number):
            if ident in self.id_to_local_proxy_obj:
                return
            raise KeyError(ident)
        if self._engine.give_up(_holder(c), number):
            self._released([number])

    def shutdown(self, c: Any) -> None:
        """Stop the server."""
        _util.debug("manager received shutdown message")
        c.send(("#RETURN", None))
        self._stopping = True

    def fallback_getvalue(self, conn: Any, ident: Any, obj: Any) -> Any:
        """Return the object itself."""
        return obj.resident.value() if isinstance(obj, Adopted) else obj

    def fallback_str(self, conn: Any, ident: Any, obj: Any) -> str:
        """Return the object as text."""
        return str(obj)

    def fallback_repr(self, conn: Any, ident: Any, obj: Any) -> str:
        """Return the object as text for programmers."""
        return repr(obj)

    # Methods of proxies that every object has, whatever is exposed.
    fallback_mapping = {  # noqa: RUF012
        "__str__": fallback_str,
        "__repr__": fallback_repr,
        "#GETVALUE": fallback_getvalue,
    }


settle_in_managers(globals())

"""Managers: a process that holds objects, and proxies for them in other processes.

The server's sockets, threads and reference counts are native; what it holds are Python objects. It
serves programs of the standard library too, and proxies reach its servers.
"""

# ruff: noqa: A002, A003, ARG001, ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import array
import os
import queue
import signal
import sys
import threading
import time
import types

from procession import _links, _process, _stdlib, connection
from procession._links import convert_to_error, dispatch, wire
from procession._procession import ManagerServer, dumps, loads
from procession._served import MAKERS, POLITE, CallerGoneError, calling, served
from procession.context import ProcessError, _default_context, get_spawning_popen, reduction

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn, Self

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

HAS_SHMEM = True

_ORIGINAL = "multiprocessing.managers"
_LONGEST_PATH = 107  # bytes of the name of a socket file
_NEW_IN_314 = sys.version_info >= (3, 14)

_process_of: Any = _stdlib.process
_util: Any = _stdlib.load("util")


def reduce_array(a: array.array[Any]) -> Any:
    """Return how to make an array from its bytes."""
    return array.array, (a.typecode, a.tobytes())


def rebuild_as_list(obj: Iterable[Any]) -> Any:
    """Return how to make a list of what a view of a dictionary shows."""
    return list, (list(obj),)


reduction.register(array.array, reduce_array)
for _view in ("items", "keys", "values"):
    reduction.register(type(getattr({}, _view)()), rebuild_as_list)


class _OfOriginal:
    """Stands in a pickle for a name of the original's module.

    Written to a program that may know the standard library alone. Here, the name may mean
    something else, so that the pickler would refuse to write it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_args: Any) -> NoReturn:
        raise TypeError("only its pickle can be called")

    def __reduce__(self) -> Any:
        return getattr, (_OriginalModule(), self._name)


class _OriginalModule:
    """Stands in a pickle for the original's module."""

    def __reduce__(self) -> Any:
        from importlib import import_module

        return import_module, (_ORIGINAL,)


class Token:
    """Says which object of which server is meant."""

    __slots__ = ("address", "id", "typeid")

    def __init__(self, typeid: str, address: Any, id: str) -> None:
        (self.typeid, self.address, self.id) = (typeid, address, id)

    def __getstate__(self) -> Any:
        return (self.typeid, self.address, self.id)

    def __setstate__(self, state: Any) -> None:
        (self.typeid, self.address, self.id) = state

    def __reduce__(self) -> Any:
        return (_OfOriginal("Token") if wire.plain else Token), self.__getstate__()

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


def all_methods(obj: Any) -> list[str]:
    """Return the names of the methods of an object."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj: Any) -> list[str]:
    """Return the names of the methods of an object that do not begin with an underscore."""
    return [name for name in all_methods(obj) if name[0] != "_"]


def _codec(serializer: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return what turns messages into bytes, and back."""
    if serializer == "pickle":
        return _dumps_reply, _links.read
    if serializer == "xmlrpclib":
        return connection._xml_dumps, connection._xml_loads
    raise KeyError(serializer)


def _free_address() -> Any:
    """Return an address that nobody uses."""
    address = connection.arbitrary_address("AF_UNIX")
    if len(os.fsencode(address)) <= _LONGEST_PATH:
        return address
    return f"\0procession-{os.getpid()}-{os.urandom(6).hex()}".encode()


def _clear_away(address: Any) -> None:
    """Remove the socket file of a server that was killed, and the folder made for it."""
    if not isinstance(address, str) or connection._is_abstract(address):
        return
    folder = os.path.dirname(address)
    mine = _process_of.current_process()._config.get("tempdir")
    try:
        os.unlink(address)
        if os.path.basename(folder).startswith("pymp-") and folder != mine:
            os.rmdir(folder)
    except OSError:
        return  # the server has done it, which is as it should be


def _number(ident: str) -> int:
    try:
        return int(ident, 16)
    except ValueError:
        raise KeyError(ident) from None


def _format_exc() -> str:
    from traceback import format_exc

    return format_exc()


def _dumps_reply(message: Any) -> bytes:
    """Return a reply as a pickle, with nothing by value that has no name in other programs."""
    return bytes(reduction.ForkingPickler.dumps(message))


def _is_simple(value: Any) -> bool:
    """Say whether a value pickles without running code of anybody."""
    if type(value) is tuple:
        return all(_is_simple(part) for part in value)
    return type(value) in _SIMPLE


def _is_function(request: Any) -> bool:
    """Say whether a request is for a function of the server, and not for a method of an object."""
    return isinstance(request, tuple) and len(request) == 4 and request[0] is None


class _Caller:
    """Who has made a request: what functions of a server are given first."""

    __slots__ = ("client", "is_ours", "reply", "thread")

    def __init__(self, client: int, thread: int, is_ours: bool) -> None:
        self.client = client
        self.thread = thread
        self.is_ours = is_ours
        self.reply: Any = None

    @property
    def holder(self) -> int | None:
        """The client to which references belong; None where nobody knows it."""
        return self.client if self.is_ours else None

    def send(self, message: Any) -> None:
        """Make `message` the reply, in the place of what the function returns."""
        self.reply = message


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


class Server:
    """Holds the objects of a manager and serves them to its proxies.

    Args:
        registry: What can be made, by `typeid`.
        address: Where to listen; None for an address that nobody uses.
        authkey: What clients must prove to know.
        serializer: `"pickle"` or `"xmlrpclib"`.
    """

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
    ]

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.registry = registry
        self.authkey = _process.authkey(authkey)
        self._serializer = serializer
        self._dumps, self._loads = _codec(serializer)
        address = address or _free_address()
        self._engine = ManagerServer(address, bytes(authkey))
        self.address = self._engine.address
        unlink = None
        if connection.address_type(address) == "AF_UNIX" and not connection._is_abstract(address):
            unlink = connection._remove_at_exit(self, address)  # type: ignore[arg-type]
        self.listener = _Door(self._engine, self.address, unlink)
        self.stop_event = _StopEvent(self._engine)
        self.id_to_obj: dict[str, Any] = {"0": (None, ())}
        # Objects that this process refers to by proxies of its own, and how many there are.
        self.id_to_local_proxy_obj: dict[str, Any] = {}
        self._local_counts: dict[str, int] = {}
        # A proxy may be dropped, and so come here, at any moment.
        self.mutex = threading.RLock()
        self._threads: set[threading.Thread] = set()

    @property
    def id_to_refcount(self) -> dict[str, int]:
        """How many references to each object other processes have."""
        return {f"{number:x}": n for number, n in self._engine.all_references().items()}

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
    # Whether `shutdown` was called; the server stops when that has been answered.
    _stopping = False

    def _serve(self) -> None:
        self._engine.start(self, _QUICK)
        if self._parent is None:
            self._engine.wait()
        else:
            connection.wait([self._engine, self._parent.sentinel])

    def _end(self) -> None:
        self._engine.stop()
        self.listener.close()
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
        try:
            work.run()
        finally:
            self._threads.discard(threading.current_thread())

    # What requests mean. They come as bytes, and leave as bytes.

    def _respond(self, native: Any, request: bytes, plain: Any) -> tuple[bytes, str]:
        """Answer a request; return the reply and what is to be done after it.

        Args:
            native: Who makes it.
            request: The request as it came.
            plain: The request, if there is nothing in it but plain values.
        """
        if plain is None or not self._is_quick(plain):
            self._engine.may_block()
        caller = _Caller(native.client, native.thread, native.is_ours)
        calling.caller = caller
        calling.is_connected = self._engine.is_connected
        calling.may_block = self._engine.may_block
        try:
            after = "serve"
            try:
                parts = self._loads(request) if plain is None else plain
            except Exception:
                message = ("#TRACEBACK", _format_exc())
                after = "close" if native.is_first else "serve"
            else:
                if native.is_first or (native.is_ours and _is_function(parts)):
                    message, after = self._call_function(caller, parts)
                else:
                    message = self._call_method(caller, parts)
            return self._serialize(message, native.is_ours), after
        finally:
            calling.caller = None
            calling.may_block = None

    def _is_quick(self, request: Any) -> bool:
        """Say whether a plain request takes no time, or says by itself when it does."""
        try:
            ident, name, args, _ = request
            if ident is not None:
                return type(self.id_to_obj[ident][0]) in POLITE
            if type(self) not in (Server, SharedMemoryServer):
                return False  # its functions may be anything
            return name in _QUICK_FUNCTIONS or (
                name == "create" and self.registry[args[0]][0] in _QUICK_MAKERS
            )
        except (KeyError, IndexError, TypeError, ValueError):
            return False

    def _serialize(self, message: Any, is_ours: bool) -> bytes:
        """Return a reply as bytes."""
        if not _is_simple(message[1]):
            self._engine.may_block()
        wire.plain = not is_ours
        try:
            return self._dumps(message)
        except Exception:
            return self._dumps(("#UNSERIALIZABLE", _format_exc()))
        finally:
            wire.plain = False

    def _call_function(self, caller: _Caller, request: Any) -> tuple[Any, str]:
        """Call a function of the server itself."""
        after = "close"
        try:
            _, name, args, kwds = request
            if name not in self.public:
                raise AssertionError(f"{name!r} unrecognized")
            result = getattr(self, name)(caller, *args, **kwds)
        except Exception:
            return ("#TRACEBACK", _format_exc()), after
        if self._stopping:
            after = "stop"
        elif name == "accept_connection":
            after = "serve"
        return caller.reply or ("#RETURN", result), after

    def _call_method(self, caller: _Caller | None, request: Any) -> Any:
        """Call a method of an object."""
        name: Any = None
        obj: Any = None
        ident: Any = None
        args, kwds = (), {}
        try:
            ident, name, args, kwds = request
            obj, exposed, mapped = self._find(ident)
            if name not in exposed:
                raise AttributeError(
                    f"method {name!r} of {type(obj)!r} object is not in exposed={exposed!r}"
                )
            method = getattr(obj, name)
            try:
                result = method(*args, **kwds)
            except Exception as error:
                return "#ERROR", error
            typeid = mapped and mapped.get(name)
            if not typeid:
                return "#RETURN", result
            rident, rexposed = self.create(caller, typeid, result)
            return "#PROXY", (rexposed, Token(typeid, self.address, rident))
        except AttributeError:
            fallback = self.fallback_mapping.get(name)
            if fallback is None:
                return "#TRACEBACK", _format_exc()
            try:
                return "#RETURN", fallback(self, caller, ident, obj, *args, **kwds)
            except Exception:
                return "#TRACEBACK", _format_exc()
        except Exception:
            return "#TRACEBACK", _format_exc()

    def _find(self, ident: Any) -> Any:
        try:
            return self.id_to_obj[ident]
        except KeyError:
            if ident in self.id_to_local_proxy_obj:
                return self.id_to_local_proxy_obj[ident]
            raise

    def _call_from_within(self, ident: Any, name: str, args: Any, kwds: Any) -> Any:
        """Call a method for a proxy in this very process, with copies of what goes in and out."""
        args, kwds = loads(dumps((args, kwds)))
        kind, result = self._call_method(None, (ident, name, args, kwds))
        return kind, loads(dumps(result))

    # Telling of the engine.

    def _restore(self, client: int, number: int) -> bool:
        """Let a client refer to an object that only this process refers to."""
        ident = f"{number:x}"
        with self.mutex:
            if ident not in self.id_to_local_proxy_obj:
                return False
            self.id_to_obj[ident] = self.id_to_local_proxy_obj[ident]
            return self._engine.refer(client, number)

    def _released(self, numbers: list[int]) -> None:
        """Drop objects that nobody refers to any more."""
        with self.mutex:
            dropped = [
                self.id_to_obj.pop(f"{number:x}", (None,))
                for number in numbers
                if not self._engine.references(number)
            ]
        if any(type(entry[0]) not in _QUICK for entry in dropped):
            # The end of an object may take long.
            self._engine.may_block()
        dropped.clear()

    def _gone(self, client: int, killed: bool) -> None:
        """Let go of what a client that is gone had locked or waited for."""
        with self.mutex:
            entries = [*self.id_to_obj.values(), *self.id_to_local_proxy_obj.values()]
        for entry in entries:
            let_go = getattr(type(entry[0]), "client_gone", None)
            if let_go is not None:
                let_go(entry[0], client, killed)

    def _hold(self, ident: str) -> None:
        """Count a proxy in this process."""
        with self.mutex:
            self.id_to_local_proxy_obj[ident] = self._find(ident)
            self._local_counts[ident] = self._local_counts.get(ident, 0) + 1

    def _let_go(self, ident: str) -> None:
        """Count one proxy in this process less."""
        dropped = None
        with self.mutex:
            self._local_counts[ident] -= 1
            if not self._local_counts[ident]:
                del self._local_counts[ident]
                dropped = self.id_to_local_proxy_obj.pop(ident, None)
        del dropped

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
            number = _number(ident)
            if self._engine.refer_to_known(_holder(c), number):
                return
            if ident not in self.id_to_local_proxy_obj:
                raise KeyError(ident)
            self.id_to_obj[ident] = self.id_to_local_proxy_obj[ident]
            self._engine.refer(_holder(c), number)

    def decref(self, c: Any, ident: str) -> None:
        """Count one reference less; drop the object if it was the last one."""
        number = _number(ident)
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
        return obj

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


class SharedMemoryServer(Server):
    """A server that in addition remembers named shared memory, to unlink it at its end."""

    public: Sequence[str] = [
        *Server.public,
        "track_segment",
        "release_segment",
        "list_segments",
    ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        address = self.address
        if isinstance(address, bytes):
            address = os.fsdecode(address)
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{address}_{os.getpid()}")
        _util.debug("SharedMemoryServer started by pid %d", os.getpid())

    def create(self, c: Any, typeid: str, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object; return its ident and the names of its methods."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c: Any) -> None:
        """Unlink what is remembered, and stop the server."""
        self.shared_memory_context.unlink()
        super().shutdown(c)

    def track_segment(self, c: Any, segment_name: str) -> None:
        """Remember named memory."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c: Any, segment_name: str) -> None:
        """Unlink named memory and forget it."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c: Any) -> list[str]:
        """Return the names of the memory that is remembered."""
        return self.shared_memory_context.segment_names


class _SharedMemoryTracker:
    """Names of shared memory that go when this goes."""

    def __init__(self, name: str, segment_names: list[str] | None = None) -> None:
        self.shared_memory_context_name = name
        self.segment_names = [] if segment_names is None else segment_names

    def register_segment(self, segment_name: str) -> None:
        """Remember named memory."""
        _util.debug("Register segment %r in pid %d", segment_name, os.getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name: str) -> None:
        """Unlink named memory and forget it."""
        from procession.shared_memory import SharedMemory

        _util.debug("Destroy segment %r in pid %d", segment_name, os.getpid())
        self.segment_names.remove(segment_name)
        segment = SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self) -> None:
        """Unlink all that is remembered."""
        for segment_name in self.segment_names[:]:
            self.destroy_segment(segment_name)

    def __del__(self) -> None:
        self.unlink()

    def __getstate__(self) -> Any:
        return (self.shared_memory_context_name, self.segment_names)

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]


class State:
    """What a manager is at."""

    __slots__ = ("value",)
    value: int
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2


# The listeners and clients of connections that turn objects into bytes in each of these ways.
listener_client: dict[str, Any] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}


class BaseManager:
    """Starts a process that holds objects, or connects with one, and makes objects there.

    When the server's process dies, every call through a proxy fails at once with an `EOFError` or a
    `ConnectionError` that names the server. The server's process ends when the process that started
    it ends, however that ends.

    Args:
        address: Where the server listens; a free one if there is none.
        authkey: What servers and clients prove to each other to know; this process's if there is
            none.
        serializer: `"pickle"` or `"xmlrpclib"`.
        ctx: The context that the server's process is started by.
        shutdown_timeout: Seconds that the server's process may take for its end before it is
            terminated, and then killed.
    """

    _registry: dict[str, Any] = {}  # noqa: RUF012
    _Server: type[Server] = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        if authkey is None:
            authkey = _process_of.current_process().authkey
        self._address = address
        self._authkey = _process.authkey(authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or _default_context.get_context()
        self._shutdown_timeout = shutdown_timeout
        self._process: Any = None
        # Kept for as long as there is this manager.
        self._way: Any = None

    def _check_initial(self) -> None:
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")
        if self._state.value != State.INITIAL:
            raise ProcessError(f"Unknown state {self._state.value!r}")

    def get_server(self) -> Server:
        """Return a server for this process to run, by its `serve_forever`."""
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Connect with a server that runs already.

        Raises:
            AuthenticationError: It has another key.
            OSError: There is none at the address.
        """
        self._link().function("dummy")
        self._state.value = State.STARTED

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        """Start the server's process, which calls `initializer(*initargs)` first."""
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        reader, writer = connection.Pipe(duplex=False)
        self._process = self._ctx.Process(
            target=type(self)._run_server,
            args=(
                self._registry,
                self._address,
                self._authkey,
                self._serializer,
                writer,
                initializer,
                initargs,
            ),
        )
        ident = ":".join(str(number) for number in self._process._identity)
        self._process.name = f"{type(self).__name__}-{ident}"
        self._process.start()
        writer.close()
        self._address = reader.recv()
        reader.close()
        self._state.value = State.STARTED
        self.shutdown = _util.Finalize(
            self,
            type(self)._finalize_manager,
            args=(
                self._process,
                self._address,
                self._authkey,
                self._state,
                self._Client,
                self._shutdown_timeout,
            ),
            exitpriority=0,
        )

    @classmethod
    def _run_server(
        cls,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: Any,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        """Be the server's process."""
        # Ctrl-C goes to all processes at a terminal, and is for the program to handle.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if initializer is not None:
            initializer(*initargs)
        server = cls._Server(registry, address, authkey, serializer)
        server._parent = _process_of.parent_process()
        writer.send(server.address)
        writer.close()
        _util.info("manager serving at %r", server.address)
        server.serve_forever()

    def _link(self) -> Any:
        """The way from this process to the server."""
        self._way = _links.link_to(self._address, self._authkey, self._serializer, self._Client)
        return self._way

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> tuple[Token, Any]:
        """Make an object; return its token and the names of its methods.

        This process has a reference to the object then.
        """
        if self._state.value != State.STARTED:
            raise AssertionError("server not yet started")
        ident, exposed = self._link().create((typeid, *args), kwds)
        return Token(typeid, self._address, ident), exposed

    def join(self, timeout: float | None = None) -> None:
        """Wait for the server's process to end, if this manager has started one."""
        if self._process is not None:
            self._process.join(timeout)
            if not self._process.is_alive():
                self._process = None

    def _debug_info(self) -> str:
        """Return some text about the server's objects."""
        text: str = self._link().function("debug_info")
        return text

    def _number_of_objects(self) -> int:
        """Return how many objects there are that somebody refers to."""
        number: int = self._link().function("number_of_objects")
        return number

    def __enter__(self) -> Self:
        if self._state.value == State.INITIAL:
            self.start()
        if self._state.value != State.STARTED:
            if self._state.value == State.SHUTDOWN:
                raise ProcessError("Manager has shut down")
            raise ProcessError(f"Unknown state {self._state.value!r}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.shutdown()

    @staticmethod
    def _finalize_manager(
        process: Any,
        address: Any,
        authkey: bytes,
        state: State,
        _Client: Any,  # noqa: N803
        shutdown_timeout: float,
    ) -> None:
        """End the server's process, by force if it does not end otherwise."""
        if process.is_alive():
            _util.info("sending shutdown message to manager")
            try:
                conn = _Client(address, authkey=authkey)
                try:
                    dispatch(conn, None, "shutdown")
                finally:
                    conn.close()
            except Exception as error:
                _util.debug("... which failed: %s", error)
            process.join(timeout=shutdown_timeout)
            for end in (process.terminate, process.kill):
                if process.is_alive():
                    _util.info("manager still alive: trying to `%s()` it", end.__name__)
                    end()
                    process.join(timeout=shutdown_timeout)
            process.join()
        _clear_away(address)
        state.value = State.SHUTDOWN
        _links.forget(address)

    @property
    def address(self) -> Any:
        """Where the server listens."""
        return self._address

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Sequence[str] | None = None,
        method_to_typeid: dict[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Let managers of this class make objects of one more kind.

        Args:
            typeid: Name of the kind, and of the method that makes one.
            callable: What makes one in the server's process.
            proxytype: Class of the proxies; one is made to measure if there is none.
            exposed: Names of the methods that proxies may call.
            method_to_typeid: Kinds of what some of the methods return, which stays in the server.
            create_method: Whether the manager gets a method of this name.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        proxytype = proxytype or AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for key, value in (method_to_typeid or {}).items():
            if type(key) is not str or type(value) is not str:
                raise AssertionError(f"{key!r} or {value!r} is not a string")
        cls._registry[typeid] = (callable, exposed, method_to_typeid, proxytype)
        if create_method:
            setattr(cls, typeid, _maker(typeid, proxytype))


def _maker(typeid: str, proxytype: Any) -> Any:
    """Return the method of a manager that makes an object and returns a proxy."""

    def make(self: Any, /, *args: Any, **kwds: Any) -> Any:
        _util.debug("requesting creation of a shared %r object", typeid)
        token, exposed = self._create(typeid, *args, **kwds)
        try:
            return proxytype(
                token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
            )
        finally:
            # The proxy has a reference of its own.
            self._link().give_up(token.id)

    make.__name__ = typeid
    return make


class BaseProxy:
    """Stands for an object in a server, and calls its methods.

    The object stays as long as there is a proxy for it. A process that dies is as one that has
    dropped its proxies.
    """

    # By address: what is used to reach a server, and what this process refers to there.
    _address_to_local = _links.by_address

    _token: Token
    # What keeps the object; None for a proxy that was made without.
    _reference: Any = None

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Any = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = listener_client[serializer][1]
        self._owned_by_manager = manager_owned
        if authkey is not None:
            self._authkey = _process.authkey(authkey)
        elif manager is not None:
            self._authkey = manager._authkey
        else:
            key = _links.known_key(token.address) or _process_of.current_process().authkey
            self._authkey = _process.authkey(key)
        if manager_owned:
            self._link = _links.Local(_process_of.current_process()._manager_server)
            self._reference = self._link.refer(self._id)
        else:
            self._connect()
            if incref:
                self._incref()

    def _connect(self) -> None:
        """Make a connection with the server, if this process has none."""
        self._link = _links.link_to(
            self._token.address, self._authkey, self._serializer, self._Client
        )

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = _links.NOTHING) -> Any:
        """Call a method of the object and return a copy of the result, or a proxy for it."""
        kind, result = self._link.call(self._id, methodname, args, kwds)
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_of(*result)
        try:
            raise convert_to_error(kind, result)
        finally:
            del result  # the exception's traceback refers to this frame

    def _proxy_of(self, exposed: Any, token: Any) -> Any:
        """Return a proxy for what a method has returned."""
        link = self._link
        link.adopt(token.id)
        try:
            token = Token(token.typeid, self._token.address, token.id)
            owner = link.server if self._owned_by_manager else self._manager
            registry = owner.registry if self._owned_by_manager else owner._registry
            return registry[token.typeid][-1](
                token,
                self._serializer,
                manager=self._manager,
                authkey=self._authkey,
                exposed=exposed,
                **({"manager_owned": True} if self._owned_by_manager else {}),
            )
        finally:
            # The proxy has a reference of its own.
            link.give_up(token.id)

    def _getvalue(self) -> Any:
        """Return a copy of the object."""
        return self._callmethod("#GETVALUE")

    def _incref(self) -> None:
        """Refer to the object for as long as there is this proxy."""
        if not self._owned_by_manager:
            self._reference = self._link.refer(self._id)
            _util.debug("INCREF %r", self._token.id)

    def __reduce__(self) -> Any:
        kwds: dict[str, Any] = {}
        popen = get_spawning_popen()
        if popen is not None:
            kwds["authkey"] = self._authkey
            # The child may come to take its own reference when this proxy is gone.
            vars(popen).setdefault("_held_for_child", []).append(self._reference)
        func: Any = type(self)
        if getattr(self, "_isauto", False):
            func = AutoProxy
            kwds["exposed"] = self._exposed_  # type: ignore[attr-defined]
        rebuild: Any = RebuildProxy
        if wire.plain:
            rebuild = _OfOriginal("RebuildProxy")
            if func.__module__ == __name__:
                func = _OfOriginal(func.__name__)
        return rebuild, (func, self._token, self._serializer, kwds)

    def __deepcopy__(self, _memo: Any) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        name, typeid = type(self).__name__, self._token.typeid
        return f"<{name} object, typeid {typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            text: str = self._callmethod("__repr__")
            return text
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def RebuildProxy(func: Any, token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
    """Return the proxy that a pickle describes."""
    server = getattr(_process_of.current_process(), "_manager_server", None)
    if isinstance(server, Server) and server.address == token.address:
        _util.debug("Rebuild a proxy owned by manager, token=%r", token)
        kwds["manager_owned"] = True
    return func(token, serializer, **kwds)


def _method(name: str) -> Any:
    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    return method


_proxy_types: dict[Any, Any] = {}


def MakeProxyType(name: str, exposed: Iterable[str]) -> Any:
    """Return a class of proxies with these methods."""
    exposed = tuple(exposed)
    if (name, exposed) not in _proxy_types:
        namespace = {method: _method(method) for method in exposed}
        proxy_type: Any = type(name, (BaseProxy,), {**namespace, "__module__": __name__})
        proxy_type._exposed_ = exposed
        _proxy_types[name, exposed] = proxy_type
    return _proxy_types[name, exposed]


def AutoProxy(
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> Any:
    """Return a proxy with the methods that the object exposes."""
    if authkey is None and manager is not None:
        authkey = manager._authkey
    if authkey is None:
        authkey = _links.known_key(token.address) or _process_of.current_process().authkey
    if exposed is None:
        client = listener_client[serializer][1]
        link = _links.link_to(token.address, authkey, serializer, client)
        exposed = link.function("get_methods", (token,))
    proxy = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )
    proxy._isauto = True
    return proxy


class Namespace:
    """An object whose attributes anybody may set."""

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value!r}" for name, value in list(self.__dict__.items()) if name[0] != "_"
        )
        return f"{type(self).__name__}({', '.join(sorted(shown))})"


class Value:
    """A value that anybody may replace."""

    def __init__(self, typecode: Any, value: Any, lock: bool = True) -> None:
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """Return the value."""
        return self._value

    def set(self, value: Any) -> None:
        """Replace the value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


def Array(typecode: str, sequence: Any, lock: bool = True) -> array.array[Any]:
    """Return an array of numbers."""
    return array.array(typecode, sequence)


# Types whose methods never block, so that the thread which looks after the sockets may call them.
_QUICK = frozenset((dict, list, set, array.array, Namespace, Value))

# Callables that make something quickly.
_QUICK_MAKERS = MAKERS | _QUICK | {Array, threading.Event}
# Functions of a server that take no time.
_QUICK_FUNCTIONS = frozenset(("dummy", "number_of_objects", "incref", "decref", "get_methods"))
# Types of values that pickle without running code of anybody.
_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))

# Seconds that threads of a server which stops may take for what they are doing.
_PATIENCE = 0.2


class IteratorProxy(BaseProxy):
    """Stands for an iterator or a generator."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Self:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Send a value into the generator."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Raise an exception in the generator."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """End the generator."""
        return self._callmethod("close", args)


class AcquirerProxy(BaseProxy):
    """Stands for a lock or a semaphore."""

    _exposed_: tuple[str, ...] = ("acquire", "release", "locked")[: 3 if _NEW_IN_314 else 2]

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take it, and say whether it was taken."""
        args = (blocking,) if timeout is None else (blocking, timeout)
        taken: bool = self._callmethod("acquire", args)
        return taken

    def release(self) -> Any:
        """Let go of it."""
        return self._callmethod("release")

    if _NEW_IN_314:

        def locked(self) -> Any:
            """Say whether it cannot be taken just now."""
            return self._callmethod("locked")

    def __enter__(self) -> Any:
        return self._callmethod("acquire")

    def __exit__(self, *_exception: object) -> Any:
        return self._callmethod("release")


class ConditionProxy(AcquirerProxy):
    """Stands for a condition."""

    _exposed_ = (*AcquirerProxy._exposed_, "wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for a notification."""
        return self._callmethod("wait", (timeout,))

    def notify(self, n: int = 1) -> Any:
        """Wake `n` of those that wait."""
        return self._callmethod("notify", (n,))

    def notify_all(self) -> Any:
        """Wake all that wait."""
        return self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result


class EventProxy(BaseProxy):
    """Stands for an event."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> Any:
        """Say whether it is set."""
        return self._callmethod("is_set")

    def set(self) -> Any:
        """Set it."""
        return self._callmethod("set")

    def clear(self) -> Any:
        """Take it back."""
        return self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is set."""
        return self._callmethod("wait", (timeout,))


class BarrierProxy(BaseProxy):
    """Stands for a barrier."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until all have come."""
        return self._callmethod("wait", (timeout,))

    def abort(self) -> Any:
        """Break the barrier."""
        return self._callmethod("abort")

    def reset(self) -> Any:
        """Make the barrier as new."""
        return self._callmethod("reset")

    @property
    def parties(self) -> Any:
        """How many must come."""
        return self._callmethod("__getattribute__", ("parties",))

    @property
    def n_waiting(self) -> Any:
        """How many have come."""
        return self._callmethod("__getattribute__", ("n_waiting",))

    @property
    def broken(self) -> Any:
        """Whether the barrier is broken."""
        return self._callmethod("__getattribute__", ("broken",))


class NamespaceProxy(BaseProxy):
    """Stands for an object, with its attributes."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        if key[0] == "_":
            return object.__getattribute__(self, key)
        return object.__getattribute__(self, "_callmethod")("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> None:
        if key[0] == "_":
            object.__setattr__(self, key, value)
        else:
            object.__getattribute__(self, "_callmethod")("__setattr__", (key, value))

    def __delattr__(self, key: str) -> None:
        if key[0] == "_":
            object.__delattr__(self, key)
        else:
            object.__getattribute__(self, "_callmethod")("__delattr__", (key,))


class ValueProxy(BaseProxy):
    """Stands for a value."""

    _exposed_ = ("get", "set")

    def get(self) -> Any:
        """Return the value."""
        return self._callmethod("get")

    def set(self, value: Any) -> Any:
        """Replace the value."""
        return self._callmethod("set", (value,))

    value = property(get, set)

    __class_getitem__: Any = classmethod(types.GenericAlias)


_LIST_METHODS = (
    *("__add__", "__contains__", "__delitem__", "__getitem__", "__imul__", "__len__", "__mul__"),
    *("__reversed__", "__rmul__", "__setitem__", "append", "count", "extend", "index", "insert"),
    *("pop", "remove", "reverse", "sort"),
    *(("clear", "copy") if _NEW_IN_314 else ()),
)
BaseListProxy: Any = MakeProxyType("BaseListProxy", _LIST_METHODS)


class ListProxy(BaseListProxy):  # type: ignore[misc]
    """Stands for a list."""

    def __iadd__(self, value: Any) -> Self:
        self._callmethod("extend", (value,))
        return self

    def __imul__(self, value: Any) -> Self:
        self._callmethod("__imul__", (value,))
        return self


_DICT_METHODS = (
    *("__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__setitem__"),
    *("clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
    *(("__ior__", "__or__", "__reversed__", "__ror__", "fromkeys") if _NEW_IN_314 else ()),
)
_BaseDictProxy: Any = MakeProxyType("_BaseDictProxy", _DICT_METHODS)
_BaseDictProxy._method_to_typeid_ = {"__iter__": "Iterator"}


class DictProxy(_BaseDictProxy):  # type: ignore[misc]
    """Stands for a dictionary."""

    if _NEW_IN_314:

        def __ior__(self, value: Any) -> Self:
            self._callmethod("__ior__", (value,))
            return self


if sys.version_info >= (3, 13):
    for _generic in (ListProxy, DictProxy):
        _generic.__class_getitem__ = classmethod(types.GenericAlias)

ArrayProxy: Any = MakeProxyType("ArrayProxy", ("__len__", "__getitem__", "__setitem__"))

BasePoolProxy: Any = MakeProxyType(
    "PoolProxy",
    (
        *("apply", "apply_async", "close", "imap", "imap_unordered", "join", "map", "map_async"),
        *("starmap", "starmap_async", "terminate"),
    ),
)
BasePoolProxy._method_to_typeid_ = {
    "apply_async": "AsyncResult",
    "map_async": "AsyncResult",
    "starmap_async": "AsyncResult",
    "imap": "Iterator",
    "imap_unordered": "Iterator",
}


class PoolProxy(BasePoolProxy):  # type: ignore[misc]
    """Stands for a pool of processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.terminate()


def _pool(*args: Any, **kwds: Any) -> Any:
    """Return a pool. Its module is imported where one is made."""
    from procession.pool import Pool

    return Pool(*args, **kwds)


class SyncManager(BaseManager):
    """A manager of what threads and processes share most: dictionaries, lists, locks, queues."""


_REGISTERED: tuple[tuple[str, Any, Any], ...] = (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", _pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("Value", Value, ValueProxy),
    ("Array", Array, ArrayProxy),
    ("Namespace", Namespace, NamespaceProxy),
)
for _typeid, _callable, _proxytype in _REGISTERED:
    SyncManager.register(_typeid, _callable, _proxytype)
# Of what methods of pools and dictionaries return.
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)

if _NEW_IN_314:
    import collections.abc

    collections.abc.MutableSequence.register(BaseListProxy)
    collections.abc.MutableMapping.register(_BaseDictProxy)
    _SET_METHODS = (
        *("__and__", "__class_getitem__", "__contains__", "__eq__", "__ge__", "__gt__", "__iand__"),
        *("__ior__", "__isub__", "__iter__", "__ixor__", "__le__", "__len__", "__lt__", "__ne__"),
        *("__or__", "__rand__", "__ror__", "__rsub__", "__rxor__", "__sub__", "__xor__", "add"),
        *("clear", "copy", "difference", "difference_update", "discard", "intersection"),
        *("intersection_update", "isdisjoint", "issubset", "issuperset", "pop", "remove"),
        *("symmetric_difference", "symmetric_difference_update", "union", "update"),
    )
    _BaseSetProxy: Any = MakeProxyType("_BaseSetProxy", _SET_METHODS)
    _BaseSetProxy._method_to_typeid_ = {"__iter__": "Iterator"}

    class SetProxy(_BaseSetProxy):  # type: ignore[misc]
        """Stands for a set."""

        def __ior__(self, value: Any) -> Self:
            self._callmethod("__ior__", (value,))
            return self

        def __iand__(self, value: Any) -> Self:
            self._callmethod("__iand__", (value,))
            return self

        def __ixor__(self, value: Any) -> Self:
            self._callmethod("__ixor__", (value,))
            return self

        def __isub__(self, value: Any) -> Self:
            self._callmethod("__isub__", (value,))
            return self

    SyncManager.register("set", set, SetProxy)


class SharedMemoryManager(BaseManager):
    """A manager that unlinks the named shared memory it has made, at its end."""

    _Server = SharedMemoryServer

    def SharedMemory(self, size: int) -> Any:
        """Return named memory of this many bytes."""
        from procession.shared_memory import SharedMemory

        memory = SharedMemory(None, create=True, size=size)
        self._track(memory)
        return memory

    def ShareableList(self, sequence: Iterable[Any]) -> Any:
        """Return a list in named memory."""
        from procession.shared_memory import ShareableList

        made = ShareableList(sequence)
        self._track(made.shm)
        return made

    def _track(self, memory: Any) -> None:
        try:
            self._link().function("track_segment", (memory.name,))
        except BaseException:
            memory.unlink()
            raise


class _AfterFork:
    """What the hooks that run in a child process are registered for."""

    def settle(self) -> None:
        """Have the servers count what this process refers to."""
        _links.settle()


_after_fork = _AfterFork()
_util.register_after_fork(_after_fork, _AfterFork.settle)


def __getattr__(name: str) -> Any:
    """Return what the original has besides, such as `RemoteError`."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_stdlib.load("managers"), name)

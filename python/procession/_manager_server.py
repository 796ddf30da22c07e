"""The server of a manager: what requests mean, and the objects that it holds."""

# ruff: noqa: ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import array
import os
import sys
import threading
import time

from procession import _links, _process, _stdlib, connection
from procession._adopted import Adopted, dismiss
from procession._links import wire
from procession._own_listener import OwnListener
from procession._procession import ManagerServer, dumps, loads
from procession._proxies import HOME, Token, listener_client, public_methods
from procession._served import (
    MAKERS,
    POLITE,
    Array,
    CallerGoneError,
    Namespace,
    Value,
    calling,
    served,
)
from procession.context import reduction

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

_process_of: Any = _stdlib.process
_util: Any = _stdlib.load("util")


def free_address() -> str:
    """Return an address that nobody uses, and that leaves no file behind."""
    return f"\0procession-{os.getpid()}-{os.urandom(6).hex()}"


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


# What turns messages into bytes, and back.
CODECS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "pickle": (_dumps_reply, _links.read),
    "xmlrpclib": (connection._xml_dumps, connection._xml_loads),
}


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
        options: What the engine's server is told besides; see `BaseManager`.
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
        self.registry = registry
        self.authkey = _process.authkey(authkey)
        self._serializer = serializer
        self._own_listener: Any = None
        if serializer not in CODECS:
            # One of the program's own, which the engine can make nothing of.
            listen, connect = listener_client[serializer]
            self._own_listener = OwnListener(self, listen(address=address, backlog=128), connect)
            address = free_address()
        self._dumps, self._loads = CODECS.get(serializer, CODECS["pickle"])
        address = address or free_address()
        options = dict(options or {})
        tls = connection._native_tls(options.pop("tls", None), address)
        self._engine = ManagerServer(address, bytes(authkey), tls, **options)
        # An abstract name stays as it was given, so that tokens of both sides are equal.
        self.address = address if connection._is_abstract(address) else self._engine.address
        if self._own_listener is not None:
            self._engine.close()
            self.address = self._own_listener.address
        unlink = None
        if connection.address_type(address) == "AF_UNIX" and not connection._is_abstract(address):
            unlink = connection._remove_at_exit(self, address)  # type: ignore[arg-type]
        self.listener = _Door(self._engine, self.address, unlink)
        self.stop_event = _StopEvent(self._engine)
        self.id_to_obj: dict[str, Any] = {"0": (None, ())}
        # Objects that this process refers to by proxies of its own, and how many there are.
        self.id_to_local_proxy_obj: dict[str, Any] = {}
        self._local_counts: dict[str, int] = {}
        # Proxies in replies, by client and thread. Whoever reads one refers to the object before it
        # makes another request.
        self._sent: dict[tuple[int, int], list[Any]] = {}
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
    # What the processes of the tree know of this server, if one of them has started it.
    _home: Any = None
    # Whether `shutdown` was called; the server stops when that has been answered.
    _stopping = False

    def _serve(self) -> None:
        self._engine.start(self, _QUICK)
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
        self._sent.pop((native.client, native.thread), None)
        calling.caller = caller
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
            return self._serialize(message, native.is_ours, native.client, native.thread), after
        finally:
            calling.caller = None

    def _answer(self, number: int, request: Any, is_first: bool) -> tuple[Any, str]:
        """Answer a request that came as an object; say also what is to be done after it."""
        caller = _Caller(number, 0, False)
        calling.caller = caller
        try:
            if not is_first:
                return self._call_method(caller, request), "serve"
            return self._call_function(caller, request)
        finally:
            calling.caller = None

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

    def _serialize(self, message: Any, is_ours: bool, client: int, thread: int) -> bytes:
        """Return a reply as bytes."""
        if not _is_simple(message[1]):
            self._engine.may_block()
        elif self._serializer == "pickle":
            return dumps(message)
        wire.plain, wire.sent = not is_ours, []
        try:
            return self._dumps(message)
        except Exception:
            return self._dumps(("#UNSERIALIZABLE", _format_exc()))
        finally:
            if wire.sent:
                self._sent[client, thread] = wire.sent
            wire.plain, wire.sent = False, None

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
            method = obj.method(name) if isinstance(obj, Adopted) else getattr(obj, name)
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

    def _check_caller(self) -> None:
        """Raise an error if whoever this thread works for is gone."""
        calling.check()

    def _bring_in(self, typeid: str, ident: str, resident: Any) -> None:
        """Hold an object in shared memory, for a proxy in this process."""
        with self.mutex:
            if ident not in self.id_to_obj and ident not in self.id_to_local_proxy_obj:
                self.id_to_local_proxy_obj[ident] = self._entry(typeid, Adopted(resident))
            self._hold(ident)

    def _entry(self, typeid: str, obj: Any) -> tuple[Any, set[str], Any]:
        _maker, exposed, method_to_typeid, _proxytype = self.registry[typeid]
        if exposed is None:
            exposed = public_methods(obj.resident.stands_for)
        return obj, {*exposed, *(method_to_typeid or ())}, method_to_typeid

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
        for key in [key for key in list(self._sent) if key[0] == client]:
            self._sent.pop(key, None)
        with self.mutex:
            entries = [*self.id_to_obj.values(), *self.id_to_local_proxy_obj.values()]
        for entry in entries:
            let_go = getattr(type(entry[0]), "_client_gone", None)
            if let_go is not None:
                let_go(entry[0], client, killed)
        dismiss(client)

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

    def adopt(self, c: Any, typeid: str, ident: str, pickled: bytes) -> None:
        """Hold an object in shared memory of the tree, for those who know it by a token."""
        obj = Adopted(loads(pickled))
        with self.mutex:
            try:
                entry = self._find(ident)
            except KeyError:
                entry = self._entry(typeid, obj)
            self.id_to_obj[ident] = entry
            if not self._engine.refer(_holder(c), _number(ident)):
                raise CallerGoneError

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


for _thing in list(globals().values()):
    if getattr(_thing, "__module__", None) == __name__:
        _thing.__module__ = HOME

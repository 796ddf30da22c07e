"""What requests mean that come to a manager's server, and how their replies are written.

They come as bytes, and leave as bytes. A request calls a method of an object that the server holds,
or a function of the server itself; what may take long lets another thread see to the clients first.
"""

from __future__ import annotations

import threading

from procession import connection
from procession._adopted import Adopted
from procession._links.messages import read, wire
from procession._manager_server.objects import QUICK, Objects
from procession._procession import dumps, loads
from procession._proxies import Token
from procession._served import MAKERS, calling, is_polite
from procession._served.values import Array

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._procession import ManagerServer

__all__ = ["CODECS", "Requests"]


def _format_exc() -> str:
    from traceback import format_exc

    return format_exc()


def _dumps_reply(message: Any) -> bytes:
    """Return a reply as a pickle, with nothing by value that has no name in other programs."""
    from procession.context import reduction

    return bytes(reduction.ForkingPickler.dumps(message))


# What turns messages into bytes, and back.
CODECS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "pickle": (_dumps_reply, read),
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


class Requests(Objects):
    """Answers requests. A server is one of these, and says which functions there are."""

    # Functions that clients may call.
    public: Sequence[str]
    # Methods of proxies that every object has, whatever is exposed.
    fallback_mapping: dict[str, Any]
    address: Any
    create: Callable[..., Any]

    # Whether `shutdown` was called; the server stops when that has been answered.
    _stopping = False

    def __init__(self, engine: ManagerServer, registry: Any, serializer: str) -> None:
        super().__init__(engine, registry)
        self._serializer = serializer
        self._dumps, self._loads = CODECS.get(serializer, CODECS["pickle"])
        # Proxies in replies, by client and thread. Whoever reads one refers to the object before it
        # makes another request.
        self._sent: dict[tuple[int, int], list[Any]] = {}

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
                return is_polite(self.id_to_obj[ident][0])
            if "_has_quick_functions" not in vars(type(self)):
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

    def _call_from_within(self, ident: Any, name: str, args: Any, kwds: Any) -> Any:
        """Call a method for a proxy in this very process, with copies of what goes in and out."""
        args, kwds = loads(dumps((args, kwds)))
        kind, result = self._call_method(None, (ident, name, args, kwds))
        return kind, loads(dumps(result))

    # Telling of the engine.

    def _check_caller(self) -> None:
        """Raise an error if whoever this thread works for is gone."""
        calling.check()

    def _gone(self, client: int, killed: bool) -> None:
        """Let go of what a client that is gone had locked or waited for, or was sent."""
        for key in [key for key in list(self._sent) if key[0] == client]:
            self._sent.pop(key, None)
        super()._gone(client, killed)


# Callables that make something quickly.
_QUICK_MAKERS = MAKERS | QUICK | {Array, threading.Event}
# Functions of a server that take no time.
_QUICK_FUNCTIONS = frozenset(("dummy", "number_of_objects", "incref", "decref", "get_methods"))
# Types of values that pickle without running code of anybody.
_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))

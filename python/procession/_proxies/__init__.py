"""Proxies for objects of managers: what they are, and how their pickles say it.

A proxy calls its object over a link, or, where the object is in shared memory, by methods that it
was given. Those for the original's kinds of objects are in `kinds`. Nothing here knows of managers.
Their classes belong to `procession.managers`, and pickles name them there.
"""

# ruff: noqa: A002, ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

from procession import _links, _process, _stdlib, connection
from procession._links.messages import NOTHING, convert_to_error, wire
from procession._procession import is_packing

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

_ORIGINAL = "multiprocessing.managers"
# Where pickles look for what is defined here.
HOME = "procession.managers"

_process_of: Any = _stdlib.process
_util: Any = _stdlib.util


def settle_in_managers(names: dict[str, Any]) -> None:
    """Have all that a module defines say that it is `procession.managers`, where users look.

    Args:
        names: The module's `globals()`.
    """
    for thing in list(names.values()):
        if getattr(thing, "__module__", None) == names["__name__"]:
            thing.__module__ = HOME


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


# The listeners and clients of connections that turn objects into bytes in each of these ways.
listener_client: dict[str, Any] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}


def _key_for(address: Any, manager: Any, authkey: bytes | None) -> Any:
    """Return what a proxy proves to know: what it was given, else its manager's, else what fits."""
    if authkey is None and manager is not None:
        authkey = manager._authkey
    if authkey is None:
        authkey = _links.known_key(address) or _process_of.current_process().authkey
    return _process.authkey(authkey)


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
    # The methods of an object in the tree's shared memory; None where a server has the object.
    _methods: Any = None

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
        self._authkey = _key_for(token.address, manager, authkey)
        if manager_owned:
            self._link = _links.Local(_process_of.current_process()._manager_server)
            self._reference = self._link.refer(self._id)
        else:
            self._connect()
            if incref:
                self._incref()

    def _settle(self, token: Token, methods: Any, manager: Any, authkey: bytes | None) -> None:
        """Be a proxy for an object in shared memory, which holds that by itself."""
        self._token = token
        self._id = token.id
        self._methods = methods
        self._manager = manager
        self._serializer = methods.resident.home.serializer
        self._Client = listener_client[self._serializer][1]
        self._owned_by_manager = False
        self._authkey = _key_for(token.address, manager, authkey)

    def _connect(self) -> None:
        """Make a connection with the server, if this process has none."""
        self._link = _links.link_to(
            self._token.address, self._authkey, self._serializer, self._Client
        )

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Call a method of the object and return a copy of the result, or a proxy for it."""
        methods = self._methods
        if methods is not None:
            if methods.has_ended():
                methods.check()
            return methods[methodname](*args, **kwds)
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
        if not self._owned_by_manager and self._methods is None:
            self._reference = self._link.refer(self._id)
            _util.debug("INCREF %r", self._token.id)

    def _bring_to_server(self) -> None:
        """Have the server hold the object too, for those who do not share memory with this tree.

        It does as long as there is this proxy or anybody refers to the object there.
        """
        if self._reference is None:
            resident = self._methods.resident
            link = resident.home.link(self._authkey, self._Client)
            self._reference = link.bring_in(self._token.typeid, self._id, resident)

    def __reduce__(self) -> Any:
        kwds: dict[str, Any] = {}
        popen = _stdlib.spawning_popen()
        if self._methods is not None:
            if is_packing():
                return self._methods.pickled(self._token, popen and self._authkey)
            self._bring_to_server()
        if wire.sent is not None:
            wire.sent.append(self)
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
            if func.__module__ == HOME:
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
    server = _links.server_here()
    if server is not None and server.address == token.address:
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
        proxy_type: Any = type(name, (BaseProxy,), {**namespace, "__module__": HOME})
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
    authkey = _key_for(token.address, manager, authkey)
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


settle_in_managers(globals())

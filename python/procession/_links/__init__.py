"""The ways from a process to a manager's server, and the objects there that the process refers to.

A server of this package is reached by one connection per process, which all threads share; a server
of the standard library by one per thread and one more for each change of a reference count; and
the server that runs in this very process by a call.

Here are the ways, by address, and what becomes of them at a fork and at the end of the process.
`messages` is what goes over them, `plain` the way to servers of the standard library.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref

from procession import _stdlib
from procession._links.messages import NOTHING, result_of
from procession._procession import ManagerClient, connect_manager
from procession.connection import _native_tls, address_type

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Link", "Local", "Reference", "link_to"]


class _Here:
    """What this process has done."""

    # Whether a forked child comes to take its own references.
    settles_after_fork = False
    # The process that says goodbye at its end: a forked child begins anew.
    says_goodbye: int | None = None
    # Held while a connection is made or chosen.
    mutex = threading.RLock()

    def settle(self) -> None:
        """Have the servers count what this process refers to since it was forked."""
        settle()


_here = _Here()


def number_of(ident: str) -> int:
    """Return the number that the engine has for an object."""
    return int(ident, 16)


class Reference:
    """One reference of this process to an object of a server; given up with this object."""

    __slots__ = ("__weakref__", "_link", "ident")

    def __init__(self, link: Link | Local, ident: str) -> None:
        self._link = link
        self.ident = ident

    def __del__(self) -> None:
        self._link.drop(self)


class Link:
    """The one connection of this process with a server of this package."""

    def __init__(self, address: Any, authkey: bytes, client: ManagerClient | None) -> None:
        self.address = address
        self.authkey = authkey
        self._client = client
        # The references that there are. A forked child starts with them, and has a connection of
        # its own to tell the server about.
        self.held: weakref.WeakSet[Reference] = weakref.WeakSet()

    def is_usable(self) -> bool:
        """Say whether the server may still be there."""
        return self._client is None or self._client.is_usable()

    def client(self) -> ManagerClient:
        """Return the connection, made anew in a process that was forked."""
        return self._client or self._connect()

    def call(self, ident: str | None, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return the kind of the reply and what is in it."""
        return (self._client or self._connect()).call((ident, name, args, kwds))

    def function(self, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return what a function of the server itself returns."""
        return result_of(*self.call(None, name, args, kwds))

    def create(self, args: Any, kwds: Any) -> tuple[str, Any]:
        """Have the server make an object; return its ident and the names of its methods.

        This process has a reference to it then.
        """
        ident, exposed = self.function("create", args, kwds)
        self.adopt(ident)
        return ident, exposed

    def bring_in(self, typeid: str, ident: str, resident: Any) -> Any:
        """Have the server hold an object in shared memory; return what gives that up."""
        from procession._homes import pickled_within_tree

        pickled, _kept = pickled_within_tree(resident)
        self.function("adopt", (typeid, ident, pickled))
        self.adopt(ident)
        try:
            return self.refer(ident)
        finally:
            self.give_up(ident)

    def adopt(self, ident: str) -> None:
        """Note a reference that the server has counted for this process."""
        self.client().adopt(number_of(ident))

    def refer(self, ident: str) -> Any:
        """Refer to an object; return what gives that up when it is dropped."""
        client, number = self.client(), number_of(ident)
        if not client.refer_again(number) and client.refer([number]):
            # Let the server say it in the original's words.
            self.function("incref", (ident,))
        reference = Reference(self, ident)
        self.held.add(reference)
        return reference

    def give_up(self, ident: str) -> None:
        """Give a reference up that was adopted."""
        if self._client is not None:
            self._client.give_up(int(ident, 16))

    def drop(self, reference: Reference) -> None:
        """Give a reference up."""
        self.give_up(reference.ident)

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()

    def say_goodbye(self) -> None:
        """Tell the server that this process ends as it should."""
        if self._client is not None:
            self._client.say_goodbye()

    def __del__(self) -> None:
        # What is locked stays so: this process may go on with other proxies for it.
        self.say_goodbye()

    def leave_to_parent(self) -> None:
        """Let go of the connection: this process was forked from the one that made it."""
        self._client = None

    def settle(self) -> None:
        """Connect and have the server count what this process refers to since it was forked."""
        if self._client is None and self.held:
            self._connect()

    def _connect(self) -> ManagerClient:
        with _here.mutex:
            if self._client is not None:
                return self._client
            client = connect_manager(self.address, self.authkey, native_tls(self.address))
            if client is None:
                raise ConnectionResetError(
                    f"the manager at {self.address!r} is another one than before"
                )
            held = [number_of(reference.ident) for reference in list(self.held)]
            missing = set(client.refer(list(set(held)))) if held else set()
            seen = set(missing)
            for number in held:
                # The first one has been counted by `refer`.
                if number in seen and number not in missing:
                    client.refer_again(number)
                seen.add(number)
            self._client = client
            _expect_end()
            return client


class Local:
    """The way to the server that runs in this process."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.address = server.address
        self.authkey = server.authkey

    def call(self, ident: str | None, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return the kind of the reply and what is in it."""
        return self.server._call_from_within(ident, name, args, kwds)

    def function(self, name: str, args: Any = (), kwds: Any = NOTHING) -> Any:
        """Return what a function of the server itself returns."""
        return getattr(self.server, name)(None, *args, **kwds)

    def adopt(self, _ident: str) -> None:
        """Do nothing: the server has counted the reference."""

    def bring_in(self, typeid: str, ident: str, resident: Any) -> Any:
        """Have the server hold an object in shared memory; return what gives that up."""
        self.server._bring_in(typeid, ident, resident)
        return Reference(self, ident)

    def refer(self, ident: str) -> Any:
        """Refer to an object; return what gives that up when it is dropped."""
        self.server._hold(ident)
        return Reference(self, ident)

    def drop(self, reference: Reference) -> None:
        """Give a reference up."""
        self.server._let_go(reference.ident)

    def give_up(self, ident: str) -> None:
        """Give a reference up that the server has counted for nobody in particular."""
        self.server.decref(None, ident)


def server_here() -> Any:
    """Return the server of this package that runs in this very process, if there is one."""
    server = getattr(_stdlib.process.current_process(), "_manager_server", None)
    return server if hasattr(server, "_call_from_within") else None


# As long as a manager or a proxy uses them.
_links: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
# The same, by address alone.
by_address: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
# Addresses of servers that know the standard library's form alone.
_plain: set[Any] = set()


# What encrypts the ways to servers that are not plain, by address.
tls_of: dict[Any, Any] = {}


def native_tls(address: Any) -> Any:
    """Return what the engine encrypts the way to a server with; None if nothing."""
    return _native_tls(tls_of.get(address), address)


def encrypted(connect: Any, address: Any) -> Any:
    """Return what connects with a server as `connect` does, encrypted if that server is."""
    tls = tls_of.get(address)
    return connect if tls is None else functools.partial(connect, tls=tls)


def link_to(address: Any, authkey: bytes, serializer: str, connect: Any) -> Any:
    """Return the way to the server at an address. Connects if this process has none yet."""
    key = (address, bytes(authkey), serializer)
    found = _links.get(key)
    if found is not None and found.is_usable():
        return found
    address_type(address)  # raises where it is none
    client = None
    if serializer == "pickle" and address not in _plain:
        client = connect_manager(address, bytes(authkey), native_tls(address))
        if client is None:
            _plain.add(address)
    with _here.mutex:
        again = _links.get(key)
        if again is not found and again is not None:
            return again  # another thread was quicker
        link: Any
        if client is None:
            from procession._links.plain import Plain

            link = Plain(address, bytes(authkey), encrypted(connect, address))
        else:
            link = Link(address, bytes(authkey), client)
            _expect_end()
        _links[key] = by_address[address] = link
        _settle_after_fork()
        return link


def forget(address: Any) -> None:
    """Forget the way to a server that has been shut down."""
    by_address.pop(address, None)
    tls_of.pop(address, None)
    for key in [key for key in list(_links) if key[0] == address]:
        link = _links.pop(key, None)
        if link is not None:
            link.close()


def known_key(address: Any) -> bytes | None:
    """Return the key by which this process has reached a server before."""
    link = by_address.get(address)
    return None if link is None else link.authkey


def _forked() -> None:
    """Be a new process: one with no connections yet."""
    _here.mutex = threading.RLock()
    for link in list(_links.values()):
        if isinstance(link, Link):
            link.leave_to_parent()


def references() -> list[Reference]:
    """Return all that keeps objects in servers for this process."""
    links = [link for link in list(_links.values()) if isinstance(link, Link)]
    return [reference for link in links for reference in list(link.held)]


def _expect_end() -> None:
    """See to it that servers are told when this process ends as it should."""
    if _here.says_goodbye != os.getpid():
        _here.says_goodbye = os.getpid()
        # After all that might still call.
        _stdlib.load("util").Finalize(None, say_goodbye, exitpriority=-1000)


def say_goodbye() -> None:
    """Tell the servers that this process ends as it should."""
    for link in list(_links.values()):
        if isinstance(link, Link):
            link.say_goodbye()


def _settle_after_fork() -> None:
    """See to it that a process that is forked from this one calls `settle`."""
    if not _here.settles_after_fork:
        _here.settles_after_fork = True
        _stdlib.util.register_after_fork(_here, _Here.settle)


def settle() -> None:
    """Have the servers count what this process refers to since it was forked."""
    # Finalizers of the parent have been forgotten, and with them those of the time since then.
    _here.says_goodbye = None
    if _links:
        _expect_end()
    for link in list(_links.values()):
        if isinstance(link, Link):
            try:
                link.settle()
            except Exception as error:
                # The manager may have been shut down, and whatever refers to it is of no use.
                _stdlib.load("util").info("incref failed: %s", error)


os.register_at_fork(after_in_child=_forked)

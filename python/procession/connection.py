"""Connections: pipes, sockets with the other end elsewhere, and waiting for several of them."""

from __future__ import annotations

import sys

import procession
from procession import _stdlib
from procession._procession import Connection as Connection
from procession._procession import Listener as _Engine
from procession._procession import connect, pipe, wait

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from procession._handshake import answer_challenge as answer_challenge
    from procession._handshake import deliver_challenge as deliver_challenge
    from procession._tls import TLS as TLS

    Address = str | bytes | tuple[str, int]

__all__ = ["TLS", "Client", "Listener", "Pipe", "wait"]

BUFSIZE = 65536 if sys.version_info >= (3, 14) else 8192
CONNECTION_TIMEOUT = 20.0  # seconds that a client may be silent while it proves who it is
MESSAGE_LENGTH = 40 if sys.version_info >= (3, 12) else 20

default_family = "AF_UNIX"
families = ["AF_INET", "AF_UNIX"]

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
if sys.version_info < (3, 12):
    CHALLENGE, WELCOME, FAILURE = _CHALLENGE, _WELCOME, _FAILURE

# Where the names are that most programs never use.
_HOMES = {
    "TLS": "_tls",
    "_create_response": "_handshake",
    "_verify_challenge": "_handshake",
    "answer_challenge": "_handshake",
    "deliver_challenge": "_handshake",
    # The original's module has these two as well.
    "AuthenticationError": "context",
    "reduction": "context",
}

# Classes that `isinstance` is told, for those that there are: see `_class_of`.
_classes: dict[type, type] = {}


def _class_of(native: type) -> type:
    """Return what is said to be the class of connections of class `native`.

    Where the original's `connection` has been imported, its `Connection` is a base of that class,
    so that programs which ask whether something is a connection get the answer they expect.
    Importing it for that alone would take longer than starting a process does.
    """
    original = _stdlib.loaded("connection")
    base = getattr(original, "Connection", None)
    if base is None or issubclass(native, base) or issubclass(base, native):
        return native
    if native not in _classes:
        namespace = {"__module__": native.__module__, "__qualname__": native.__qualname__}
        _classes[native] = type(native.__name__, (native, base), namespace)
    return _classes[native]


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connected ends.

    Args:
        duplex: Whether both can send and receive. If not, the first only receives and the second
            only sends.
    """
    return pipe(bool(duplex))


def arbitrary_address(family: str) -> Any:
    """Return an address of the family that nobody uses."""
    if family == "AF_INET":
        return ("localhost", 0)
    if family == "AF_UNIX":
        import os

        name = f"listener-{os.urandom(6).hex()}"
        return os.path.join(_stdlib.load("util").get_temp_dir(), name)
    raise ValueError("unrecognized family")


def address_type(address: Any) -> str:
    """Return the family of an address: `"AF_INET"` or `"AF_UNIX"`."""
    if type(address) is tuple:
        return "AF_INET"
    if type(address) is str and address.startswith("\\\\"):
        return "AF_PIPE"
    if type(address) is str or _is_abstract(address):
        return "AF_UNIX"
    raise ValueError(f"address type of {address!r} unrecognized")


def _is_abstract(address: Any) -> bool:
    """Say whether this is the name of a socket that is no file."""
    if isinstance(address, bytes):
        return address[:1] == b"\0"
    return isinstance(address, str) and address[:1] == "\0"


def _validate_family(family: str) -> None:
    if family == "AF_PIPE":
        raise ValueError(f"Family {family} is not recognized.")


def _checked_key(authkey: Any) -> bytes | None:
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")
    return authkey


def _native_tls(tls: TLS | None, address: Any) -> Any:
    """Return what the engine needs."""
    if tls is None:
        return None
    from procession import _tls

    return _tls.native(tls, address)


class Listener:
    """Waits for clients at an address.

    Args:
        address: Where to listen; a free address of the family if there is none.
        family: Family of the address, `"AF_INET"` or `"AF_UNIX"`; the address tells by itself.
        backlog: How many clients may wait to be accepted.
        authkey: What clients must prove to know, and this side proves to know. None for no proof.
        max_message: The longest message that the connections receive, in bytes; None for any
            length. A longer one raises an `OSError` before memory is set aside for it.
        tls: What encrypts the connections; the address must be one of TCP. None for plain ones.
        handshake_timeout: Seconds that a client may be silent while it proves who it is.

    Raises:
        OSError: The address is in use, too long, or not this machine's.
        ValueError: There is no such family of addresses.
    """

    def __init__(
        self,
        address: Address | None = None,
        family: str | None = None,
        backlog: int = 1,
        authkey: bytes | None = None,
        *,
        max_message: int | None = None,
        tls: TLS | None = None,
        handshake_timeout: float = CONNECTION_TIMEOUT,
    ) -> None:
        family = family or (address and address_type(address)) or default_family
        _validate_family(family)
        self._authkey = _checked_key(authkey)
        address = address or arbitrary_address(family)
        self._listener: _Engine | None = _Engine(
            address,
            backlog,
            authkey,
            handshake_timeout,
            max_message,
            _native_tls(tls, address),
        )
        self._address = self._listener.address
        self._last_accepted: Any = None
        self._unlink: Callable[[], None] | None = None
        if family == "AF_UNIX" and not _is_abstract(address):
            self._unlink = _remove_at_exit(self, address)

    def accept(self) -> Connection:
        """Wait for a client and return the connection with it.

        A client that is silent or goes away before it has proved anything is passed over.

        Raises:
            AuthenticationError: The client has another key or no certificate that is trusted, or
                sent something else.
            OSError: The listener is closed.
        """
        if self._listener is None:
            raise OSError("listener is closed")
        connection, self._last_accepted = self._listener.accept()
        return connection

    def close(self) -> None:
        """Close the socket and remove its file; connections with clients stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()

    @property
    def address(self) -> Any:
        """Where it listens."""
        return self._address

    @property
    def last_accepted(self) -> Any:
        """The address of the client that was accepted last; None if there was none."""
        return self._last_accepted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _remove_at_exit(listener: Listener, path: Any) -> Any:
    """Remove the file when the listener or the program ends."""
    import os

    return _stdlib.load("util").Finalize(listener, os.unlink, args=(path,), exitpriority=0)


def Client(
    address: Address,
    family: str | None = None,
    authkey: bytes | None = None,
    *,
    max_message: int | None = None,
    tls: TLS | None = None,
    timeout: float | None = None,
) -> Connection:
    """Return a connection with the listener at an address.

    With a key this blocks until the listener has accepted and both have proved to know it.

    Args:
        address: Where the listener is.
        family: Family of the address; the address tells by itself.
        authkey: What the listener must prove to know, and this side proves to know.
        max_message: The longest message that is received, in bytes; None for any length.
        tls: What encrypts the connection; the address must be one of TCP. None for a plain one.
        timeout: Seconds until there must be a connection, the proofs included. None is for as long
            as the listener accepts nobody; once it has begun to prove who it is, it may be silent
            for 20 seconds.

    Raises:
        AuthenticationError: The listener has another key or no certificate that is trusted, or
            sent something else.
        TimeoutError: The listener was silent for too long.
        OSError: Nobody listens there, or the address is too long.
    """
    _validate_family(family or address_type(address))
    return connect(address, _checked_key(authkey), max_message, _native_tls(tls, address), timeout)


class ConnectionWrapper:
    """A connection that turns objects into bytes in its own way."""

    def __init__(
        self, conn: Any, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]
    ) -> None:
        self._conn = conn
        self._dumps = dumps
        self._loads = loads
        for name in ("fileno", "close", "poll", "recv_bytes", "send_bytes"):
            setattr(self, name, getattr(conn, name))

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._conn.send_bytes(self._dumps(obj))

    def recv(self) -> Any:
        """Receive an object."""
        return self._loads(self._conn.recv_bytes())


def _xml_dumps(obj: Any) -> bytes:
    from xmlrpc.client import dumps

    return dumps((obj,), allow_none=True).encode("utf-8")


def _xml_loads(text: bytes) -> Any:
    from xmlrpc.client import loads

    ((obj,), _method) = loads(text.decode("utf-8"))
    return obj


class XmlListener(Listener):
    """A listener whose connections send objects as XML."""

    def accept(self) -> Any:
        """Wait for a client and return the connection with it."""
        return ConnectionWrapper(super().accept(), _xml_dumps, _xml_loads)


def XmlClient(*args: Any, **kwds: Any) -> ConnectionWrapper:
    """Return a connection that sends objects as XML."""
    return ConnectionWrapper(Client(*args, **kwds), _xml_dumps, _xml_loads)


def reduce_connection(conn: Connection) -> Any:
    """Return how to make the connection in another process."""
    from procession import reduction

    # `fileno()` is for those who read the descriptor by themselves, and makes the pipe slower.
    handle = conn._handle
    descriptor = reduction.DupFd(conn.fileno() if handle is None else handle)
    arguments = (descriptor, conn.readable, conn.writable)
    mailbox = conn._note_mailbox()
    return rebuild_connection, arguments if mailbox is None else (*arguments, mailbox)


def rebuild_connection(
    df: Any, readable: bool, writable: bool, mailbox: int | None = None
) -> Connection:
    """Return the connection that `reduce_connection` was given."""
    return Connection(df.detach(), readable, writable, mailbox=mailbox)


def _reduce_socket(sock: Any) -> Any:
    """Return how to make the socket in another process."""
    from procession import reduction

    return reduction._reduce_socket(sock)


def _register(original: Any) -> None:
    original.register(Connection, reduce_connection)
    original.register(original.socket.socket, _reduce_socket)


_stdlib.register_reducers(_register)


def __getattr__(name: str) -> Any:
    """Import what has not been used before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(procession._submodule(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

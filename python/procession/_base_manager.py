"""`BaseManager`: starts a server's process or connects with a server, and makes objects there.

`procession.managers` is where users find it, with the managers of the original's kinds of objects.
The server itself is in `_manager_server`, and how it is brought to its end in `_server_end`.
"""

# ruff: noqa: A002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` takes long to import
import os

import procession
from procession import _links, _process, _stdlib, connection
from procession._homes import Herald, Home
from procession._manager_server import CODECS, Server, free_address
from procession._proxies import AutoProxy, Token, listener_client, settle_in_managers

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self

__all__ = ["STANDARD", "BaseManager", "State"]

_process_of: Any = _stdlib.process
_util: Any = _stdlib.util

# What managers of the original's kinds make, whatever programs register later.
STANDARD: dict[str, Any] = {}


class State:
    """What a manager is at."""

    __slots__ = ("value",)
    value: int
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2


class BaseManager:
    """Starts a process that holds objects, or connects with one, and makes objects there.

    When the server's process dies, every call of an object there fails at once with an `EOFError`
    or a `ConnectionError` that names the server. The server's process ends when the process that
    started it ends, however that ends.

    Objects of the original's own kinds that the tree of processes makes by a manager which one of
    it has started are in shared memory, and serve without the server. Calls of them fail, and those
    that wait end, when the manager is shut down or the process that started it ends.

    Args:
        address: Where the server listens; a free one if there is none.
        authkey: What servers and clients prove to each other to know; this process's if there is
            none.
        serializer: `"pickle"` or `"xmlrpclib"`.
        ctx: The context that the server's process is started by.
        shutdown_timeout: Seconds that the server's process may take for its end before it is
            terminated, and then killed.
        tls: What encrypts all connections with the server; the address must be one of TCP. Other
            processes of the program that get proxies know it if they were started after the server
            or have connected a manager of their own with it.
        max_clients: How many clients the server has at a time: processes, and threads of programs
            of the standard library. One more is turned away. None for 1,048,576.
        max_message: The longest request, in bytes; who sends a longer one is parted with. None for
            1 TiB. Memory is taken as the bytes come.
        handshake_timeout: Seconds that a client may take to prove that it knows the key.
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
        tls: connection.TLS | None = None,
        max_clients: int | None = None,
        max_message: int | None = None,
        handshake_timeout: float | None = None,
    ) -> None:
        from procession.context import _default_context

        if tls is not None:
            connection._native_tls(tls, address)  # raises where it is of no use
        for name, most in (("max_clients", max_clients), ("max_message", max_message)):
            if most is not None and most < 1:
                raise ValueError(f"{name} must be None or at least 1, not {most}")
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
        self._tls = tls
        options = {
            "tls": tls,
            "max_clients": max_clients,
            "max_message": max_message,
            "patience": handshake_timeout,
        }
        # Only what is said: classes that replace the server's know nothing of it.
        said = {name: value for name, value in options.items() if value is not None}
        self._options = {"options": said} if said else {}
        self._process: Any = None
        # Kept for as long as there is this manager.
        self._way: Any = None
        # What the processes of the tree know of it; None for one that this tree has not started.
        self._home: Home | None = None

    def _check_initial(self) -> None:
        from procession.context import ProcessError

        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")
        if self._state.value != State.INITIAL:
            raise ProcessError(f"Unknown state {self._state.value!r}")

    def get_server(self) -> Server:
        """Return a server for this process to run, by its `serve_forever`."""
        self._check_initial()
        return self._Server(
            self._registry, self._address, self._authkey, self._serializer, **self._options
        )

    def connect(self) -> None:
        """Connect with a server that runs already.

        Raises:
            AuthenticationError: It has another key.
            OSError: There is none at the address.
        """
        self._use_tls()
        self._link().function("dummy")
        self._state.value = State.STARTED

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        """Start the server's process, which calls `initializer(*initargs)` first."""
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        # Here, so that nothing has to be found any more when the end has come. A server has no use
        # for it.
        procession._submodule("_server_end")
        # Where it can be said beforehand where the server will listen, nobody waits for it now.
        reader = writer = None
        if self._address is None and initializer is None and self._serializer in CODECS:
            self._address = free_address()
        else:
            reader, writer = connection.Pipe(duplex=False)
        self._home = Home(self._address, self._serializer)
        self._start_process(Herald(self._home, writer), initializer, initargs)
        if reader is not None and writer is not None:
            writer.close()
            self._address = reader.recv()
            reader.close()
        self._home.note_server(self._address, self._process.pid)
        self._use_tls()
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
                self._home,
            ),
            exitpriority=0,
        )

    def _start_process(
        self, herald: Herald, initializer: Callable[..., object] | None, initargs: Iterable[Any]
    ) -> None:
        """Start the server's process, under a name that says what it is."""
        target = type(self)._run_server
        server = (self._registry, self._address, self._authkey, self._serializer)
        args = (*server, herald, initializer, initargs)
        self._process = self._ctx.Process(target=target, args=args, kwargs=self._options)
        ident = ":".join(str(number) for number in self._process._identity)
        self._process.name = f"{type(self).__name__}-{ident}"
        self._process.start()

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
        **options: Any,
    ) -> None:
        """Be the server's process."""
        # Ctrl-C goes to all processes at a terminal, and is for the program to handle.
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        if initializer is not None:
            initializer(*initargs)
        server = cls._Server(registry, address, authkey, serializer, **options)
        server._parent = _process_of.parent_process()
        server._home = getattr(writer, "home", None)
        writer.send(server.address)
        writer.close()
        _util.info("manager serving at %r", server.address)
        server.serve_forever()

    def _use_tls(self) -> None:
        if self._tls is not None:
            _links.tls_of[self._address] = self._tls

    def _link(self) -> Any:
        """The way from this process to the server."""
        if self._home is not None:
            self._home.wait_until_ready()
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

    def _make_here(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        """Make an object in shared memory, and return a proxy for it.

        Returns None if the object has to be in the server.
        """
        home = self._home
        if home is None or self._state.value != State.STARTED:
            return None
        # For those who make something: a server's process needs none of it.
        from procession._residents.kinds import KINDS, proxy_for

        kind = KINDS.get(typeid)
        if kind is None:
            return None
        # A subclass may have its own idea of such objects, or of how they are made.
        is_original = (
            self._registry[typeid] == STANDARD[typeid]
            and type(self)._create is BaseManager._create
            and self._Server.create is Server.create
        )
        if not is_original:
            return None
        try:
            made = kind.resident().make(home, *args, **kwds)
        except Exception as error:
            # Either the server can do it, or it says in the original's way why not.
            _util.debug("%r object goes to the server: %s", typeid, error)
            return None
        return proxy_for(typeid, _new_ident(), made, self, self._authkey)

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
            from procession.context import ProcessError

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
        home: Home,
    ) -> None:
        """End the server's process, by force if it does not end otherwise."""
        from procession._server_end import end_server

        end_server(process, address, authkey, _Client, shutdown_timeout, home)
        state.value = State.SHUTDOWN
        _links.forget(address)

    @property
    def address(self) -> Any:
        """Where the server listens. Waits until it does, so that anybody can be told."""
        if self._home is not None and self._state.value == State.STARTED:
            try:
                self._home.wait_until_ready()
            except EOFError:
                return self._address  # whoever calls a server that has died is told of that
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


def _new_ident() -> str:
    """Return what an object is called that no server has made: servers use addresses of memory."""
    return f"{int.from_bytes(os.urandom(8)) | 1 << 63:x}"


def _maker(typeid: str, proxytype: Any) -> Any:
    """Return the method of a manager that makes an object and returns a proxy."""

    def make(self: Any, /, *args: Any, **kwds: Any) -> Any:
        proxy = self._make_here(typeid, args, kwds)
        if proxy is not None:
            return proxy
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


settle_in_managers(globals())

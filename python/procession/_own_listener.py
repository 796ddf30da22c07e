"""Clients of a manager that come through a listener of the program's own.

What turns objects into bytes is then in the connections that it makes, so that they are served as
the original does: one thread waits for clients, and each client has one.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from traceback import format_exc

from procession.connection import answer_challenge, deliver_challenge

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["OwnListener"]

# No client of the engine has one of these numbers.
_numbers = itertools.count(-1, -1)


class OwnListener:
    """Serves the clients of a listener.

    Args:
        server: What answers requests: it has `_answer` and `stop_event`.
        listener: What clients connect with.
        connect: What connects with it.
    """

    def __init__(self, server: Any, listener: Any, connect: Callable[..., Any]) -> None:
        self._server = server
        self._listener = listener
        self._connect = connect
        self._closed = False
        self.address = listener.address

    def start(self) -> None:
        """Serve from now on."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Let no more clients in."""
        if not self._closed:
            self._closed = True
            # The thread that waits for clients comes to see it by one.
            with contextlib.suppress(Exception):
                self._connect(self.address).close()
            self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client = self._listener.accept()
            except OSError:
                # Closed, or out of descriptors for a moment.
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: Any) -> None:
        number, is_first = next(_numbers), True
        # Whatever goes wrong here, the client is gone or sends nonsense.
        with contextlib.suppress(Exception), contextlib.closing(client):
            key = bytes(self._server.authkey)
            deliver_challenge(client, key)
            answer_challenge(client, key)
            after = "serve"
            while after == "serve":
                message, after = self._server._answer(number, client.recv(), is_first)
                is_first = False
                try:
                    client.send(message)
                except Exception:
                    client.send(("#UNSERIALIZABLE", format_exc()))
            if after == "stop":
                self._server.stop_event.set()

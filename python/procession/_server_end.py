"""How a manager brings its server to its end, by a request or by force, and clears up after it."""

from __future__ import annotations

import os

from procession import _links, _stdlib, connection
from procession._links.messages import dispatch

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

    from procession._homes import Home

__all__ = ["end_server"]

_process_of: Any = _stdlib.process
_util: Any = _stdlib.util


def end_server(
    process: Any, address: Any, authkey: bytes, connect: Any, timeout: float, home: Home
) -> None:
    """End the server's process, by force if it does not end otherwise.

    Args:
        process: The process.
        address: Where the server listens.
        authkey: What its clients must prove to know.
        connect: What connects with it.
        timeout: Seconds that the process may take for each way to end it.
        home: What all processes of the tree know of the manager.
    """
    home.end()
    if process.is_alive():
        _util.info("sending shutdown message to manager")
        # One that does not answer yet will look whether it is of any use.
        if home.is_ready():
            _ask_to_stop(address, authkey, connect)
        process.join(timeout=timeout)
        for end in (process.terminate, process.kill):
            if process.is_alive():
                _util.info("manager still alive: trying to `%s()` it", end.__name__)
                end()
                process.join(timeout=timeout)
        process.join()
    _clear_away(address)


def _ask_to_stop(address: Any, authkey: bytes, connect: Any) -> None:
    """Have a server stop, if it can be reached."""
    try:
        conn = _links.encrypted(connect, address)(address, authkey=authkey)
        try:
            dispatch(conn, None, "shutdown")
        finally:
            conn.close()
    except Exception as error:
        _util.debug("... which failed: %s", error)


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

"""What a manager's server holds, and who refers to it.

The engine counts the references of other processes, by client; those of proxies in the server's own
process are counted here. Whoever changes either has `mutex`.
"""

from __future__ import annotations

import array
import threading

from procession._adopted import Adopted, dismiss
from procession._proxies import public_methods
from procession._served.values import Namespace, Value

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

    from procession._procession import ManagerServer

__all__ = ["QUICK", "Objects", "number_of"]


# Types whose methods never block, so that the thread which looks after the sockets may call them.
QUICK = frozenset((dict, list, set, array.array, Namespace, Value))


def number_of(ident: str) -> int:
    """Return the number that the engine has for an object."""
    try:
        return int(ident, 16)
    except ValueError:
        raise KeyError(ident) from None


class Objects:
    """Objects by what they are called, and those who refer to them.

    Args:
        engine: What counts the references of other processes.
        registry: What can be made, by `typeid`.
    """

    def __init__(self, engine: ManagerServer, registry: Any) -> None:
        self._engine = engine
        self.registry = registry
        self.id_to_obj: dict[str, Any] = {"0": (None, ())}
        # Objects that this process refers to by proxies of its own, and how many there are.
        self.id_to_local_proxy_obj: dict[str, Any] = {}
        self._local_counts: dict[str, int] = {}
        # A proxy may be dropped, and so come here, at any moment.
        self.mutex = threading.RLock()

    @property
    def id_to_refcount(self) -> dict[str, int]:
        """How many references to each object other processes have."""
        return {f"{number:x}": n for number, n in self._engine.all_references().items()}

    def _find(self, ident: Any) -> Any:
        try:
            return self.id_to_obj[ident]
        except KeyError:
            if ident in self.id_to_local_proxy_obj:
                return self.id_to_local_proxy_obj[ident]
            raise

    def _entry(self, typeid: str, obj: Any) -> tuple[Any, set[str], Any]:
        _maker, exposed, method_to_typeid, _proxytype = self.registry[typeid]
        if exposed is None:
            exposed = public_methods(obj.resident.stands_for)
        return obj, {*exposed, *(method_to_typeid or ())}, method_to_typeid

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
        if any(type(entry[0]) not in QUICK for entry in dropped):
            # The end of an object may take long.
            self._engine.may_block()
        dropped.clear()

    def _gone(self, client: int, killed: bool) -> None:
        """Let go of what a client that is gone had locked or waited for."""
        with self.mutex:
            entries = [*self.id_to_obj.values(), *self.id_to_local_proxy_obj.values()]
        for entry in entries:
            let_go = getattr(type(entry[0]), "_client_gone", None)
            if let_go is not None:
                let_go(entry[0], client, killed)
        dismiss(client)

    # Telling of proxies in this process.

    def _bring_in(self, typeid: str, ident: str, resident: Any) -> None:
        """Hold an object in shared memory, for a proxy in this process."""
        with self.mutex:
            if ident not in self.id_to_obj and ident not in self.id_to_local_proxy_obj:
                self.id_to_local_proxy_obj[ident] = self._entry(typeid, Adopted(resident))
            self._hold(ident)

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

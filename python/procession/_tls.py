"""TLS: what encrypts connections, and the end of a process that has such connections."""

from __future__ import annotations

import os

from procession import _stdlib, connection
from procession._procession import Tls, finish_tunnels

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any, Self

__all__ = ["TLS", "native"]

# Seconds that peers may take for what was sent to them before this process ended.
_PATIENCE = 2.0

_registered: list[object] = []


class TLS:
    """What encrypts connections over TCP, and says who may be trusted.

    The other end must be of this package too, and speak TLS 1.3. A key that both ends have, if
    there is one, is proved inside of it. Who the other end is shows in its certificate; if that
    does not do, an `AuthenticationError` says what is wrong. A connection that is cut, with no
    farewell of the other end, raises an `OSError` in whoever receives.

    One object can serve both ends. It can be pickled only for a child process that is being
    started, if it has a private key.

    Args:
        certificate: The certificate that this end shows, and behind it those that lead from it to
            one that the other end trusts: PEM, or the path of a file. A listener needs one.
        key: The private key of the certificate: PEM, or a path.
        ca: The certificates of those that this end trusts: PEM, or a path. A client needs them.
        mutual: Whether a listener turns away clients without a certificate that `ca` has signed.
        server_name: Who the listener must be, by its certificate; the host of the address that is
            connected with if it is None.

    Raises:
        ValueError: This is no certificate or no key, or they do not belong together.
    """

    __module__ = "procession.connection"

    def __init__(
        self,
        certificate: bytes | str | os.PathLike[str] | None = None,
        key: bytes | str | os.PathLike[str] | None = None,
        ca: bytes | str | os.PathLike[str] | None = None,
        *,
        mutual: bool = False,
        server_name: str | None = None,
    ) -> None:
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key must be given together")
        if certificate is None and ca is None:
            raise ValueError("TLS needs a certificate to show, or those of whom to trust: ca")
        if mutual and ca is None:
            raise ValueError("who has signed the certificates of clients must be given: ca")
        texts = (_pem(certificate), _pem(key), _pem(ca))
        self._arguments = (*texts, bool(mutual), server_name)
        self._native = Tls(*self._arguments)

    @classmethod
    def _of(cls, arguments: Any) -> Self:
        certificate, key, ca, mutual, server_name = arguments
        return cls(certificate, key, ca, mutual=mutual, server_name=server_name)

    def __reduce__(self) -> Any:
        if self._arguments[1] is not None:
            from procession.context import assert_spawning

            assert_spawning(self)
        return TLS._of, (self._arguments,)

    def __repr__(self) -> str:
        certificate, _, ca, mutual, server_name = self._arguments
        return (
            f"<{type(self).__name__} certificate={certificate is not None} ca={ca is not None} "
            f"mutual={mutual} server_name={server_name!r}>"
        )


def _pem(text: bytes | str | os.PathLike[str] | None) -> bytes | None:
    if text is None or isinstance(text, bytes):
        return text
    with open(text, "rb") as file:
        return file.read()


def native(tls: TLS, address: Any) -> Any:
    """Return what the engine needs for a connection at this address."""
    if not isinstance(tls, TLS):
        raise TypeError(f"tls must be a TLS, not {type(tls)!s}")
    if address is None or connection.address_type(address) != "AF_INET":
        raise ValueError(f"TLS is for addresses of TCP, a pair of host and port, not {address!r}")
    _finish_at_exit()
    return tls._native


def _finish_at_exit() -> None:
    """See to it that what was sent is on its way before this process ends.

    A child that was forked ends without what the C library would do. Finalizers run in each process
    that ends by itself; a forked child forgets its parent's.
    """
    if os.getpid() not in _registered:
        _registered[:] = [os.getpid()]
        # After all that might still send.
        _stdlib.load("util").Finalize(None, finish_tunnels, (_PATIENCE,), exitpriority=-2000)

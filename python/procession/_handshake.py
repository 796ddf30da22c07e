"""How the two ends of a connection prove to each other that they have the same key.

Listeners and clients of this package leave it to the engine. This is for programs that do it over a
connection of their own, by the names in `connection`.
"""

from __future__ import annotations

from procession._procession import answer, challenge, verify
from procession.connection import _CHALLENGE, _FAILURE, _WELCOME
from procession.context import AuthenticationError

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["answer_challenge", "deliver_challenge"]

_LONGEST_REPLY = 256  # bytes
_LEAST_CHALLENGE = 20  # bytes


def _bytes_key(authkey: Any) -> bytes:
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
    return authkey


def deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
    """Let the other end of a connection prove that it knows the key.

    Raises:
        AuthenticationError: It does not.
    """
    _bytes_key(authkey)
    message = b"{%s}%s" % (digest_name.encode("ascii"), challenge().removeprefix(b"{sha256}"))
    connection.send_bytes(_CHALLENGE + message)
    response = connection.recv_bytes(_LONGEST_REPLY)
    try:
        verify(authkey, message, response)
    except AuthenticationError:
        connection.send_bytes(_FAILURE)
        raise
    connection.send_bytes(_WELCOME)


def answer_challenge(connection: Any, authkey: bytes) -> None:
    """Prove to the other end of a connection that this one knows the key.

    Raises:
        AuthenticationError: It was not convinced, or sent something else than a challenge.
    """
    _bytes_key(authkey)
    message = connection.recv_bytes(_LONGEST_REPLY)
    if not message.startswith(_CHALLENGE):
        raise AuthenticationError(f"Protocol error, expected challenge: {message=}")
    message = message[len(_CHALLENGE) :]
    if len(message) < _LEAST_CHALLENGE:
        raise AuthenticationError(f"challenge too short: {len(message)} bytes")
    connection.send_bytes(answer(authkey, message))
    if connection.recv_bytes(_LONGEST_REPLY) != _WELCOME:
        raise AuthenticationError("digest sent was rejected")


def _create_response(authkey: bytes, message: bytes) -> bytes:
    """Return the answer to a challenge, under the name that the original has for that."""
    return answer(authkey, message)


def _verify_challenge(authkey: bytes, message: bytes, response: bytes) -> None:
    """Check the answer to a challenge, under the name that the original has for that."""
    verify(authkey, message, response)

"""Listeners and clients of this package with those of unchanged CPythons."""

import datetime

import pytest

import procession
from tests.cross.conftest import KEY

# Around the size above which a message is written apart from its length, and around that of a pipe.
SIZES = [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1 << 20]

VALUES = [
    None,
    True,
    [0, 1, -1, 255, 256, -(2**31), 2**31, 2**63, -(2**70), 2**2100],
    [0.0, -1.5, 1e300, float("inf"), 1 + 2j],
    ["", "text", "ä€😀", "\ud800", "x" * 300, "x" * 70_000],
    [b"", b"bytes", bytes(range(256)), b"x" * 70_000, bytearray(b"changeable")],
    ([], (), {}, set(), frozenset({1})),
    ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    {"a": 1, 2: "b", (3, 4): [5], None: {"deep": {"deeper": [()]}}},
    [[[[[[[[[["deep"]]]]]]]]]],
    ["twice", "twice"],
    datetime.date(2026, 1, 2),
    list(range(100_000)),
    {number: str(number) for number in range(20_000)},
    b"large" * 1_000_000,
]


def pattern(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_bytes_of_every_size_go_there_and_back(meet):
    with meet() as (end, peer):
        for size in SIZES:
            end.send(("echo bytes", None))
            end.send_bytes(pattern(size))
            assert end.recv_bytes() == pattern(size)
        end.close()
        assert peer.ending() is None


def test_objects_go_there_and_back(meet):
    with meet() as (end, peer):
        for value in VALUES:
            end.send(("echo object", None))
            end.send(value)
            received = end.recv()
            assert received == value
            assert type(received) is type(value)
        end.close()
        assert peer.ending() is None


def test_object_that_occurs_twice_is_one_object_there_and_back(meet):
    with meet() as (end, _):
        shared = ["shared"]
        loop = [shared, shared]
        loop.append(loop)
        end.send(("echo object", None))
        end.send(loop)
        received = end.recv()
        assert received[0] == shared
        assert received[0] is received[1]
        assert received[2] is received


def test_messages_are_received_into_buffers(meet):
    with meet() as (end, peer):
        for size in SIZES:
            end.send(("read into", (size + 3, 3)))
            end.send_bytes(pattern(size))
            assert end.recv() == (size, bytes(3) + pattern(size))

            end.send(("echo bytes", None))
            end.send_bytes(pattern(size))
            buffer = bytearray(size + 3)
            assert end.recv_bytes_into(buffer, 3) == size
            assert buffer == bytes(3) + pattern(size)
        end.close()
        assert peer.ending() is None


def test_message_of_the_peer_that_does_not_fit_is_in_the_error(meet):
    with meet() as (end, _):
        for size in SIZES[2:]:
            end.send(("echo bytes", None))
            end.send_bytes(pattern(size))
            with pytest.raises(procession.BufferTooShort) as caught:
                end.recv_bytes_into(bytearray(100))
            assert caught.value.args == (pattern(size),)


def test_parts_of_a_buffer_are_sent(meet):
    with meet() as (end, _):
        whole = bytes(range(200))
        for part in [(0,), (50,), (50, 0), (50, 100), (0, 200)]:
            end.send(("send part", part))
            stop = part[0] + part[1] if len(part) > 1 else None
            assert end.recv_bytes() == whole[part[0] : stop]

            end.send(("echo bytes", None))
            end.send_bytes(whole, *part)
            assert end.recv_bytes() == whole[part[0] : stop]


def test_message_of_the_peer_that_is_longer_than_allowed_ends_receiving(meet):
    with meet() as (end, peer):
        end.send(("echo bytes", None))
        end.send_bytes(b"x" * 1000)
        assert end.recv_bytes(1000) == b"x" * 1000
        end.send(("echo bytes", None))
        end.send_bytes(b"x" * 1001)
        with pytest.raises(OSError, match="bad message length"):
            end.recv_bytes(1000)
        end.close()
        assert peer.ending() in {None, "ConnectionResetError"}


def test_message_that_is_longer_than_the_peer_allows_is_refused_there(meet):
    with meet() as (end, peer):
        end.send(("read at most", 1000))
        end.send_bytes(b"x" * 1001)
        assert peer.ending() == "OSError"
        with pytest.raises((EOFError, ConnectionResetError)):
            end.recv_bytes()


@pytest.mark.parametrize("key", [KEY, bytes(range(256)), b"long" * 1000, None])
def test_same_key_opens_the_door(meet, key):
    with meet(key, key) as (end, peer):
        end.send(("echo object", None))
        end.send("hello")
        assert end.recv() == "hello"
        end.close()
        assert peer.ending() is None


def test_empty_key_is_a_key(meet, interpreter, ours, asks_for_an_empty_key):
    if ours == "client" and not asks_for_an_empty_key(interpreter):
        pytest.skip("with an empty key, a listener of this interpreter asks its clients for none")
    with meet(b"", b"") as (end, peer):
        end.send(("echo object", None))
        end.send("hello")
        assert end.recv() == "hello"
        end.close()
        assert peer.ending() is None


@pytest.mark.parametrize(
    ("key", "peers_key"),
    # An added zero byte would make no difference: that is how HMAC fills up short keys.
    [(KEY, b"another"), (b"", KEY), (KEY, KEY[:-1])],
)
def test_another_key_is_refused_on_both_sides(refusal, key, peers_key):
    assert refusal(key, peers_key) == (procession.AuthenticationError, "AuthenticationError")


def test_peer_without_a_key_is_refused(refusal):
    """It sends "hello" in place of a challenge, or of the answer to one."""
    assert refusal(KEY, None, "greet") == (procession.AuthenticationError, None)


def test_peer_with_a_key_refuses_who_has_none(meet):
    with meet(None, KEY) as (end, peer):
        # In place of a challenge, or of the answer to one.
        end.send_bytes(b"hello")
        # Before 3.12, an answer that is no challenge was an assertion that failed.
        assert peer.ending() in {"AuthenticationError", "AssertionError"}


@pytest.mark.soak
def test_more_than_two_gibibytes_go_there_and_back(meet):
    size = (1 << 31) + 7
    block = b"start" + bytes(size - 8) + b"end"
    with meet() as (end, peer):
        end.send(("echo bytes", None))
        end.send_bytes(block)
        assert end.recv_bytes() == block
        end.close()
        assert peer.ending() is None

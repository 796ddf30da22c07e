"""A program that knows only the standard library: the other end of a connection.

It is told on one line of its standard input what to be (a listener or a client), what to do, where,
and with which key. It prints its address if it is a listener, and at its end the name of the
exception that it ended with, or `null`, as JSON.
"""

import json
import sys
from multiprocessing.connection import Client, Listener


def obey(end):
    """Do what comes through the connection, until it is closed."""
    while True:
        try:
            command, argument = end.recv()
        except EOFError:
            return
        COMMANDS[command](end, argument)


def echo_bytes(end, _):
    end.send_bytes(end.recv_bytes())


def echo_object(end, _):
    end.send(end.recv())


def read_into(end, place):
    size, offset = place
    buffer = bytearray(size)
    count = end.recv_bytes_into(buffer, offset)
    end.send((count, bytes(buffer)))


def send_part(end, part):
    end.send_bytes(bytes(range(200)), *part)


def read_at_most(end, longest):
    end.recv_bytes(longest)


COMMANDS = {
    "echo bytes": echo_bytes,
    "echo object": echo_object,
    "read into": read_into,
    "send part": send_part,
    "read at most": read_at_most,
}


def greet(end):
    """Send what no handshake expects, and read until the other side has enough."""
    end.send_bytes(b"hello")
    try:
        while True:
            end.recv_bytes()
    except (EOFError, ConnectionError):
        pass


def main():
    role, action, family, address, key = json.loads(sys.stdin.readline())
    key = None if key is None else bytes.fromhex(key)
    act = {"obey": obey, "greet": greet}[action]
    address = tuple(address) if family == "AF_INET" else address
    ending = None
    try:
        if role == "listener":
            with Listener(address, family, authkey=key) as listener:
                where = listener.address  # bytes, if it is no path
                where = where.decode() if isinstance(where, bytes) else where
                print(json.dumps(where), flush=True)
                with listener.accept() as end:
                    act(end)
        else:
            with Client(address, family, authkey=key) as end:
                act(end)
    except Exception as error:
        ending = type(error).__name__
    print(json.dumps(ending), flush=True)


if __name__ == "__main__":
    main()

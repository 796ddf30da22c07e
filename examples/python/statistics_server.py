"""Do statistics for one program, such as `crates/procession/examples/statistics_client.rs`.

    python examples/python/statistics_server.py [KEY]

Listens at a port of this machine, prints its number, and serves who connects with the key until
that goes away. Requests and replies are plain tuples, which programs in Rust send and receive as
enums.
"""

import statistics
import sys
from multiprocessing.connection import Listener


def answer(request):
    match request:
        case ("Mean", numbers):
            return ("Number", statistics.fmean(numbers))
        case ("Quantiles", {"numbers": numbers, "parts": parts}):
            return ("Numbers", statistics.quantiles(numbers, n=parts))
        case _:
            return ("Failed", f"no request: {request!r}")


def serve(connection):
    while True:
        try:
            reply = answer(connection.recv())
        except EOFError:
            return
        except statistics.StatisticsError as error:
            reply = ("Failed", str(error))
        connection.send(reply)


def main():
    key = sys.argv[1] if len(sys.argv) > 1 else "example"
    with Listener(("localhost", 0), authkey=key.encode()) as listener:
        print(listener.address[1], flush=True)
        with listener.accept() as connection:
            serve(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main())

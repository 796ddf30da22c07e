"""Pools in coroutines.

The result of `apply_async`, `map_async` or `starmap_async` of a `Pool` can be awaited. Awaiting
blocks no thread, and when the coroutine is cancelled, as `asyncio.timeout` does it, so is the call:
it is not begun, or its worker is killed and replaced.

```python
import asyncio
from procession import Pool, aio

def square(x):
    return x * x

async def main():
    with Pool(2) as pool:
        print(await pool.apply_async(square, (3,)))
        async for value in aio.imap(pool, square, range(10)):
            print(value)

if __name__ == "__main__":
    asyncio.run(main())
```
"""

from __future__ import annotations

import asyncio
import collections

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Any

    from procession.pool import AsyncResult, Pool

__all__ = ["future_of", "imap", "imap_unordered"]


def future_of(result: AsyncResult[Any]) -> asyncio.Future[Any]:
    """Return a future of the running loop for the result of a pool.

    Cancelling it cancels the call.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def tell_loop() -> None:
        # A loop that is closed has nobody left who waits.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, future, result)

    def follow(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            result.cancel()

    result.add_done_callback(tell_loop)
    future.add_done_callback(follow)
    return future


def _settle(future: asyncio.Future[Any], result: AsyncResult[Any]) -> None:
    """Give the future what a call that is done returned or raised."""
    if future.done():
        return
    try:
        value = result.get()
    except StopIteration as error:
        # A future refuses this one, which would end the coroutine that waits for it.
        raised = RuntimeError("the call raised StopIteration")
        raised.__cause__ = error
        future.set_exception(raised)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)


async def imap(
    pool: Pool,
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    *,
    buffersize: int = 64,
    **limits: Any,
) -> AsyncIterator[Any]:
    """Yield `func(item)` for each item, in their order, called in the workers of a pool.

    Args:
        pool: Who carries out the calls.
        func: What to call.
        iterable: The items, which are read as results are asked for.
        buffersize: Most calls that are under way at a time.
        limits: `timeout` and `retries`, as for `Pool.apply`.
    """
    under_way: collections.deque[asyncio.Future[Any]] = collections.deque()
    try:
        for item in iterable:
            under_way.append(future_of(pool.apply_async(func, (item,), **limits)))
            if len(under_way) >= buffersize:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        _cancel_all(under_way)


async def imap_unordered(
    pool: Pool,
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    *,
    buffersize: int = 64,
    **limits: Any,
) -> AsyncIterator[Any]:
    """Yield what `imap` does, in the order in which it is ready."""
    under_way: set[asyncio.Future[Any]] = set()
    ready: list[asyncio.Future[Any]] = []
    try:
        for item in iterable:
            under_way.add(future_of(pool.apply_async(func, (item,), **limits)))
            if len(under_way) >= buffersize:
                ready = await _take_done(under_way)
                while ready:
                    yield ready.pop().result()
        while under_way:
            ready = await _take_done(under_way)
            while ready:
                yield ready.pop().result()
    finally:
        _cancel_all([*under_way, *ready])


async def _take_done(under_way: set[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    under_way -= done
    return list(done)


def _cancel_all(futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        # One that has failed has had its say.
        if not future.cancel() and not future.cancelled():
            future.exception()

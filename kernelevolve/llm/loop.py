"""An event loop in a thread of its own, so that calls under way can be given up."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import TypeVar

_Result = TypeVar("_Result")
_PATIENCE_S = 5.0
"""For tasks to end once they are cancelled."""


class Loop:
    """Runs coroutines for other threads. A blocking read can't be interrupted from outside; a task can."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[object, object, _Result]) -> _Result:
        """The result. Raises what the coroutine raises, and `CancelledError` once the loop is closed.

        An interrupt of the waiting thread gives the coroutine up.
        """
        with self._lock:
            if self._closed:
                work.close()
                raise CancelledError
            loop = self._started()
            future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:  # an interrupt above all: nobody waits for the answer any more
            future.cancel()
            raise

    def close(self, last: Coroutine[object, object, None]) -> None:
        """Cancel what runs, then run `last`, then end the thread. May be called again."""
        with self._lock:
            loop, self._loop, self._closed = self._loop, None, True
        if loop is None or self._thread is None:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="model calls", daemon=True)
            self._thread.start()
        return self._loop


async def _wind_up(last: Coroutine[object, object, None]) -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE_S)
    await last
    await asyncio.get_running_loop().shutdown_asyncgens()

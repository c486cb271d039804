"""Hansa as an executor of :mod:`concurrent.futures`: functions run as tasks, futures bring what they return.

Calls that come close together travel as one array. One thread submits them and asks how they are; a future is
PENDING until its task is seen to run, and can be cancelled so long (and at the server, where it was submitted).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Unpack

from hansa.client import job_api, operations
from hansa.client.connect import connect
from hansa.client.effects import Operation, Work
from hansa.client.errors import FUNCTION, HansaError, ServerAway
from hansa.client.functions import Calls, one_returned
from hansa.client.tracking import progress_html, tracked
from hansa.client.transport import Transport
from hansa.client.verbs import JobOptions, make_options
from hansa.jobs.wire import Job, Phase, Task

T = TypeVar("T")
LINGER_S = 0.02
"""A call waits so long for others to travel with it."""
BATCH = 1000
"""Calls in one array at most."""
_POLL_S = (0.05, 1.0)
_LOOK_S = 0.5
"""How often a thread without work looks whether its program has ended."""
PATIENCE_S = 3600.0
"""A server that is away for longer loses the calls that it has; until then they are waited for."""


class HansaFuture(Future[T]):
    """A call. :meth:`task` says which task it became."""

    def __init__(self, tell: Callable[[HansaFuture[Any]], None]) -> None:
        super().__init__()
        self._tell = tell
        self.place: tuple[int, int] | None = None

    def task(self) -> tuple[int, int] | None:
        """The job's number and the task's index; None before it is submitted."""
        return self.place

    def cancel(self) -> bool:
        """Take the call back: True if its program had not been seen to run. The server stops its task."""
        was_cancelled = self.cancelled()
        done = super().cancel()
        if done and not was_cancelled and self.place is not None:
            self._tell(self)
        return done


@dataclass
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: HansaFuture[Any]


@dataclass
class _Batch:
    """An array on its way: futures by index."""

    job: Job
    futures: dict[int, HansaFuture[Any]]
    settled: int = 0
    kills: list[int] = field(default_factory=list)


class HansaExecutor(Executor):
    """Runs calls as tasks. Takes what :class:`hansa.Hansa` takes, and the options of a job for all calls.

    Example:
        >>> from hansa import HansaExecutor
        >>> with HansaExecutor(cores=2, memory="4G") as executor:                # doctest: +SKIP
        ...     futures = [executor.submit(pow, 2, n) for n in range(100)]
        ...     print(sum(future.result() for future in futures))
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        home: str | Path | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        self._connection = (server, token, home)
        self._options = options
        self._news: queue.SimpleQueue[_Call | HansaFuture[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._calls = self._ended = self._failed = 0
        self._unsettled: set[HansaFuture[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> HansaFuture[T]:
        """Call ``fn(*args, **kwargs)`` as a task. The future raises what the call raised, RemoteTraceback its cause."""
        future: HansaFuture[T] = HansaFuture(self._news.put)
        with self._lock:
            if self._is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._thread is None:
                # Not a daemon: as with every executor, a program ends when its calls have.
                self._thread = threading.Thread(target=self._serve, name="hansa-executor")
                self._thread.start()
            self._calls += 1
            self._unsettled.add(future)
        future.add_done_callback(self._count)
        self._news.put(_Call(fn, args, kwargs, future))
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """What the calls return, in order. ``chunksize`` of them are one task: for calls of much less than a second."""
        if chunksize < 1:
            raise ValueError("chunksize is at least 1")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        rows = zip(*iterables, strict=False)
        chunks = super().map(_apply_chunk(fn), _chunks(rows, chunksize), timeout=timeout)
        return itertools.chain.from_iterable(chunks)

    def as_completed(
        self, futures: Iterable[Future[T]] | None = None, timeout: float | None = None, *, progress: bool = True
    ) -> Iterator[Future[T]]:
        """Futures as they end (None: all that have not), with a bar in a notebook or on a terminal meanwhile."""
        with self._lock:
            chosen = list(self._unsettled) if futures is None else list(futures)
        return tracked(chosen, timeout, "HansaExecutor" if progress else None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those there are, or cancel those that have not started.

        A program that does not call this waits at its end for the calls that it has made, as with every executor.
        """
        with self._lock:
            self._is_closed = True
            thread, left = self._thread, list(self._unsettled)
        if cancel_futures:
            for future in left:
                future.cancel()
        self._news.put(None)
        if wait and thread is not None:
            thread.join()

    def _count(self, future: Future[Any]) -> None:
        with self._lock:
            self._unsettled.discard(future)
            self._ended += 1
            self._failed += not future.cancelled() and future.exception() is not None

    def __repr__(self) -> str:
        return f"<HansaExecutor: {self._ended:,} of {self._calls:,} calls ended, {self._failed:,} failed>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return progress_html("HansaExecutor", self._ended, self._failed, self._calls)

    # -- the thread ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            transport = Transport(*connect(*self._connection))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            self._fail_all(error)
            return
        batches: list[_Batch] = []
        try:
            self._rounds(transport, batches)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            self._fail_all(error)
        finally:
            transport.close()

    def _rounds(self, transport: Transport, batches: list[_Batch]) -> None:
        pause = _POLL_S[0]
        is_closed = False
        while not (is_closed and not batches and self._news.empty()):
            calls, kills, told = self._gather(pause if batches else None, is_waiting=not is_closed or bool(batches))
            is_closed = is_closed or told
            for some in (calls[at : at + BATCH] for at in range(0, len(calls), BATCH)):
                batch = self._send(transport, some)
                batches += [batch] if batch is not None else []
            for batch in batches:
                dead = [future.place[1] for future in kills if future.place and future.place[0] == batch.job.number]
                if dead:
                    number = batch.job.number
                    self._patiently(transport, lambda number=number, dead=dead: job_api.kill(number, dead))  # type: ignore[misc]
            before = sum(len(batch.futures) for batch in batches)
            for batch in batches:
                self._patiently(transport, lambda batch=batch: _look(batch))  # type: ignore[misc]
            batches[:] = [batch for batch in batches if batch.futures]
            moved = bool(calls) or before != sum(len(batch.futures) for batch in batches)
            pause = _POLL_S[0] if moved else min(_POLL_S[1], pause * 1.5)

    def _patiently(self, transport: Transport, make: Callable[[], Operation[T]]) -> T:
        """Perform it; again while the server is away, as what it has accepted goes on meanwhile."""
        began = time.monotonic()
        while True:
            try:
                return transport.run(make())
            except ServerAway:
                if time.monotonic() - began > PATIENCE_S:
                    raise
                time.sleep(_POLL_S[1])

    def _gather(self, timeout_s: float | None, *, is_waiting: bool) -> tuple[list[_Call], list[HansaFuture[Any]], bool]:
        """Calls and cancellations that have come, and whether the end was; waits for the first, lingers for more."""
        calls: list[_Call] = []
        kills: list[HansaFuture[Any]] = []
        is_closed = False
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                left = _LOOK_S if until is None else max(0.0, until - time.monotonic())
                item = self._news.get(timeout=left) if is_waiting else self._news.get_nowait()
            except queue.Empty:
                is_over = not threading.main_thread().is_alive()  # nobody has said so, and nobody will
                if until is not None or is_over:
                    return calls, kills, is_closed or is_over
                continue
            if item is None:
                is_closed, is_waiting = True, False
            elif isinstance(item, _Call):
                calls.append(item)
            else:
                kills.append(item)
            until = time.monotonic() + LINGER_S

    def _send(self, transport: Transport, calls: list[_Call]) -> _Batch | None:
        live = [call for call in calls if not call.future.cancelled()]
        if not live:
            return None
        values, key = [(call.function, call.args, call.kwargs) for call in live], uuid.uuid4().hex
        try:
            job = self._patiently(transport, lambda: _submit(values, self._options, key))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            if len(live) > 1 and isinstance(error, HansaError) and error.code == FUNCTION:
                for call in live:  # one of them cannot travel: the others shall not suffer
                    self._news.put(call) if _travels(call) else _settle(call.future, error=_untravelled(call))
                return None
            for call in live:
                _settle(call.future, error=error)
            return None
        futures = {}
        for index, call in enumerate(live):
            call.future.place = (job.number, index)
            futures[index] = call.future
            if call.future.cancelled():
                self._news.put(call.future)
        return _Batch(job, futures)

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            self._is_closed = True
            left = list(self._unsettled)
        for future in left:
            _settle(future, error=error)


def _apply_calls() -> Callable[[Any], Any]:
    def call(parts: Any) -> Any:  # local, so that it travels by value: workers need no Hansa
        function, args, kwargs = parts
        return function(*args, **kwargs)

    return call


def _chunks(rows: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    found = iter(rows)
    while chunk := list(itertools.islice(found, size)):
        yield chunk


def _apply_chunk(function: Callable[..., T]) -> Callable[[list[tuple[Any, ...]]], list[T]]:
    def chunk(rows: list[tuple[Any, ...]]) -> list[T]:  # local, so that it travels by value
        return [function(*row) for row in rows]

    return chunk


def _submit(values: list[Any], options: JobOptions, key: str) -> Operation[Job]:
    calls: Calls = yield Work(lambda: Calls(_apply_calls(), values))
    try:
        draft = yield Work(lambda: calls.draft(make_options(options)))
        return (yield from operations.submit(draft, key=key))
    finally:
        calls.close()


def _travels(call: _Call) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps((call.function, call.args, call.kwargs))
    except Exception:  # noqa: BLE001 - whatever it is, it does not travel
        return False
    return True


def _untravelled(call: _Call) -> HansaError:
    return HansaError(
        FUNCTION,
        f"The call of {getattr(call.function, '__name__', call.function)!s} cannot be sent.",
        hint="Open files, connections and locks cannot travel; make them inside the function.",
    )


def _look(batch: _Batch) -> Operation[None]:
    """Settle the futures whose tasks have ended; note which run."""
    batch.job = yield from job_api.job(batch.job.number)
    counts = batch.job.counts
    ended = counts.done + counts.failed + counts.killed
    if ended == batch.settled and not counts.running:
        return
    after = None
    while True:
        page = yield from job_api.tasks(batch.job.number, after, 1_000)
        for task in page.items:
            future = batch.futures.get(task.index)
            if future is not None:
                yield from _take(batch, task, future)
        after = page.next
        if after is None:
            break
    batch.settled = ended


def _take(batch: _Batch, task: Task, future: HansaFuture[Any]) -> Operation[None]:
    if task.phase == Phase.RUNNING and not future.running():
        if not future.cancelled():
            with contextlib.suppress(RuntimeError):
                future.set_running_or_notify_cancel()
        return
    if not Phase(task.phase).is_final:
        return
    del batch.futures[task.index]
    if future.cancelled():
        return
    try:
        value = yield from one_returned(batch.job, task)
    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
        _settle(future, error=error)
    else:
        _settle(future, value)


def _settle(future: HansaFuture[Any], value: Any = None, error: BaseException | None = None) -> None:
    """Give a future its end, whatever it was before."""
    if future.done():
        return
    if not future.running() and not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


class AsyncHansaExecutor:
    """The same for asyncio: ``await executor.submit(f, x)``."""

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        home: str | Path | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        self._executor = HansaExecutor(server, token, home, **options)

    async def __aenter__(self) -> AsyncHansaExecutor:
        return self

    async def __aexit__(self, kind: object, *exc: object) -> None:
        await self.shutdown(cancel_futures=kind is not None)

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> asyncio.Future[T]:
        """Call it as a task; await what it returns. To cancel the future is to cancel the call."""
        return asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    async def map(self, function: Callable[..., T], *values: Iterable[Any], chunksize: int = 1) -> AsyncIterator[T]:
        """What the calls return, in order, as it comes; ``chunksize`` of them are one task."""
        if chunksize < 1:
            raise ValueError("chunksize is at least 1")
        rows = _chunks(zip(*values, strict=False), chunksize)
        futures = [self.submit(_apply_chunk(function), chunk) for chunk in rows]
        try:
            for future in futures:
                for value in await future:
                    yield value
        finally:
            for future in futures:
                future.cancel()

    async def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Take no more calls and wait for those there are."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<Async{self._executor!r:.1000}"[:-1] + ">"

    def _repr_html_(self) -> str:
        return self._executor._repr_html_()

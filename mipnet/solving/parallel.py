"""Independent programs run side by side: a program that is done is never run again, one whose process was killed is.

By default dask.distributed starts a local cluster of spawned processes with one thread each, which talk over loopback only; with
the address of a scheduler the programs go there.  With ``workers=0`` they run in this process, and distributed is not needed.
A script that starts a local cluster needs ``if __name__ == "__main__":`` around its own steps, as every spawned process imports it.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mipnet.errors import BackendMissing, InputError, MipnetError, SolverFailure

if TYPE_CHECKING:
    from distributed import Client, Future

K = TypeVar("K")
V = TypeVar("V")

DEATHS = 3
"""A program that has lost so many processes is run once more; if that one dies as well, it fails."""

PATIENCE = 10
"""Seconds to wait for a scheduler that is named, and for its first worker."""


def run_all(
    programs: Mapping[K, Callable[[], V]],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    on_done: Callable[[K, V], None] | None = None,
    finished: Mapping[K, V] | None = None,
) -> dict[K, V]:
    """The value of every program by its key, in the order of ``programs``.

    Parameters
    ----------
    programs
        Functions without arguments that can be pickled, such as `functools.partial` objects.
    workers
        How many processes to start, one a core if None; 0 runs one program after another in this process.
    scheduler
        The address of a running scheduler, such as ``tcp://10.0.0.1:8786``; ``workers`` plays no part then.
    on_done
        Called with key and value as soon as a program ends, in this process.
    finished
        Values that are known: these programs do not run.

    An exception of a program is raised here, with its key; the others are cancelled.  Ctrl-C cancels all and closes the cluster.
    """
    if workers is not None and workers < 0:
        raise InputError(f"`workers` is {workers}; expected a whole number of at least 0, or None for one a core")
    values = {key: value for key, value in (finished or {}).items() if key in programs}
    rest = {key: program for key, program in programs.items() if key not in values}
    if workers == 0 and scheduler is None:
        source = _one_by_one(rest)
    else:
        source = _distributed(rest, min(workers or os.cpu_count() or 1, len(rest)), scheduler)
    with closing(source):
        for key, value in source:
            values[key] = value
            if on_done is not None:
                on_done(key, value)
    return {key: values[key] for key in programs}


def _one_by_one(programs: Mapping[K, Callable[[], V]]) -> Generator[tuple[K, V], None, None]:
    for key, program in programs.items():
        try:
            value = program()
        except Exception as error:
            raise _named(key, error) from error
        yield key, value


def _named(key: object, error: Exception) -> Exception:
    """The error with the key of its program: in front of the message of mipnet's own, as a note to any other."""
    if isinstance(error, MipnetError):
        return type(error)(f"program {key}: {error}")
    error.add_note(f"raised by program {key}")
    return error


def _distributed(programs: Mapping[K, Callable[[], V]], workers: int, scheduler: str | None) -> Generator[tuple[K, V], None, None]:
    """Keys and values as they come.

    A thread gets its next program only when the result of its last one has come back and the scheduler was told to forget it: a process
    that dies while it runs one program cannot take the result of another with it, nor have it computed again.
    """
    if not programs:
        return
    with ExitStack() as stack:
        client = stack.enter_context(_client(workers, scheduler))
        from distributed import as_completed

        mark, waiting = uuid.uuid4().hex[:8], list(enumerate(programs.items()))[::-1]
        running: dict[Future[V], K] = {}
        stack.callback(lambda: client.cancel(list(running), force=True))
        results = as_completed(loop=client.loop, with_results=True, raise_errors=False)

        def hand_out(count: int) -> None:
            for _ in range(min(count, len(waiting))):
                number, (key, program) = waiting.pop()
                future = client.submit(program, key=f"mipnet-{mark}-{number}", pure=False)
                running[future] = key
                results.add(future)

        hand_out(max(1, sum(client.nthreads().values())))
        for future, value in results:
            key = running.pop(future)
            if future.status != "finished":
                raise _failure(key, future)
            future.release()
            hand_out(1)
            yield key, value


def _failure(key: object, future: Future[Any]) -> Exception:
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return SolverFailure(f"program {key}: {DEATHS + 1} processes died while they ran it; is there enough memory? Try fewer workers")
    if isinstance(error, Exception):
        return _named(key, error)
    return SolverFailure(f"program {key}: it was cancelled by the scheduler; start again, with the same scheduler or without")


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the scheduler, or of a local cluster that is closed at the end; distributed logs nothing meanwhile."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise BackendMissing("programs run in parallel by dask.distributed: pip install mipnet[parallel], or use 0 workers") from None
    settings = {"distributed.scheduler.allowed-failures": DEATHS, "distributed.admin.large-graph-warning-threshold": "16GiB"}
    with _hushed(), dask.config.set(settings), ExitStack() as stack:
        address = stack.enter_context(_cluster(workers)).scheduler_address if scheduler is None else scheduler
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE, set_as_default=False))
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            told = f"the scheduler at `{address}` cannot be used ({' '.join(str(error).split())[:160]})"
            raise InputError(f"{told}; expected the address of one with workers, such as tcp://10.0.0.1:8786") from None
        yield client


def _cluster(workers: int) -> Any:
    """A local cluster of spawned processes with one thread each, without dashboard or limit on memory."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        processes=True,
        threads_per_worker=1,
        memory_limit=0,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        preload="mipnet.solving.parallel",
    )


def dask_setup(worker: Any) -> None:
    """In a worker of the local cluster: Ctrl-C is for the process that started it, which ends the workers in order."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _hushed() -> Iterator[None]:
    """A killed worker is told of in the log of distributed at length; here it is no news, as its program runs again."""
    log = logging.getLogger("distributed")
    before, log.propagate = (log.level, log.propagate), False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]

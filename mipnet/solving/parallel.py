"""Independent programs in parallel: a finished program is never run again; one whose process was killed is.

By default dask.distributed starts a local cluster of spawned processes with one thread each, which communicate over loopback only.  With
the address of a scheduler, the programs run on its cluster.  With 0 workers they run in this process, without distributed.
A script that starts a local cluster needs ``if __name__ == "__main__":`` around its own steps, because every spawned process imports it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mipnet.errors import InputError, MipnetError, SolverFailure, suggest_keywords
from mipnet.limits.deadline import Deadline
from mipnet.limits.memory import MEMORY_LIMIT_BYTES_MIN, current_limit, memory_left, memory_limit
from mipnet.solving.dask_client import PROCESS_DEATHS_MAX, dask_client, entered

if TYPE_CHECKING:
    from distributed import Future

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


@suggest_keywords
@dataclass(frozen=True)
class Workers:
    """Where independent programs run.

    Parameters
    ----------
    count
        The number of local processes to start, one per core if None; 0 runs one program after another in this process.
    scheduler
        The address of a running dask scheduler, such as ``tcp://10.0.0.1:8786``; ``count`` is not used then.
    """

    count: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 0:
            raise InputError(f"`workers` is {self.count}; expected a whole number of at least 0, or None for one per core")

    @classmethod
    def of(cls, given: int | Workers | None) -> Workers:
        """Return workers as they are, and a number of processes as workers."""
        return given if isinstance(given, Workers) else cls(given)


def run_all(
    programs: Mapping[KeyT, Callable[..., ValueT]],
    *,
    workers: int | Workers | None = None,
    on_done: Callable[[KeyT, ValueT], None] | None = None,
    finished: Mapping[KeyT, ValueT] | None = None,
    deadline: Deadline | None = None,
) -> dict[KeyT, ValueT]:
    """Run programs, and return the value of each by its key, in the order of ``programs``.

    Parameters
    ----------
    programs
        Functions without arguments that can be pickled, such as `functools.partial` objects.
    workers
        The number of processes (see `Workers`), or `Workers` with the address of a scheduler.
    on_done
        Called in this process with key and value when a program has ended.
    finished
        Values that are known already: these programs do not run.
    deadline
        If given, each program is called with a deadline of its own when it starts: the time left is divided among the programs left.

    An exception of a program is raised here, with its key; the others are cancelled.  Ctrl-C cancels all and closes the cluster.
    Each local process may take an equal share of the memory that this one may still take; on a scheduler, where other machines may
    run the programs, each process may take as much as this one.
    """
    place = Workers.of(workers)
    values = {key: value for key, value in (finished or {}).items() if key in programs}
    rest = {key: program for key, program in programs.items() if key not in values}
    if place.count == 0 and place.scheduler is None:
        source = _one_by_one(rest, deadline)
    else:
        count = min(place.count or os.cpu_count() or 1, len(rest))
        limit = current_limit() if place.scheduler is not None else memory_left() / max(1, count)
        limited = {key: partial(_run_within, program, max(limit, MEMORY_LIMIT_BYTES_MIN)) for key, program in rest.items()}
        source = _distributed(limited, count, place.scheduler, deadline)
    with closing(source):
        for key, value in source:
            values[key] = value
            if on_done is not None:
                on_done(key, value)
    return {key: values[key] for key in programs}


def _run_within(program: Callable[..., ValueT], limit: float, *arguments: Deadline) -> ValueT:
    """Return the value of a program that may take this many bytes."""
    with memory_limit(limit):
        return program(*arguments)


def _timed(program: Callable[..., ValueT], deadline: Deadline | None, rounds: int) -> Callable[[], ValueT]:
    """Return a program that starts now, with its share of the time if ``rounds`` of programs follow each other, this one included."""
    return program if deadline is None else partial(program, deadline.share(1 / rounds))


def _one_by_one(programs: Mapping[KeyT, Callable[..., ValueT]], deadline: Deadline | None) -> Generator[tuple[KeyT, ValueT], None, None]:
    for left, (key, program) in zip(range(len(programs), 0, -1), programs.items(), strict=True):
        try:
            value = _timed(program, deadline, left)()
        except Exception as error:
            raise _named(key, error) from error
        yield key, value


def _named(key: object, error: Exception) -> Exception:
    """Return the error with the key of its program: before the message of an error of mipnet, as a note to any other."""
    if isinstance(error, MipnetError):
        return type(error)(f"program {key}: {error}")
    error.add_note(f"raised by program {key}")
    return error


def _distributed(
    programs: Mapping[KeyT, Callable[..., ValueT]], workers: int, scheduler: str | None, deadline: Deadline | None
) -> Generator[tuple[KeyT, ValueT], None, None]:
    """Yield keys and values in the order in which programs end.

    A thread gets its next program only after the result of its last one has arrived here and was released on the scheduler.  So a
    process that dies while it runs one program loses no other result, and no other program is computed again.
    """
    if not programs:
        return
    with ExitStack() as stack:
        client = stack.enter_context(entered(dask_client(workers, scheduler)))
        from distributed import as_completed

        mark, waiting = uuid.uuid4().hex[:8], list(enumerate(programs.items()))[::-1]
        running: dict[Future[ValueT], KeyT] = {}
        stack.callback(lambda: client.cancel(list(running), force=True))
        results = as_completed(loop=client.loop, with_results=True, raise_errors=False)

        threads = max(1, sum(client.nthreads().values()))

        def submit(count: int) -> None:
            for _ in range(min(count, len(waiting))):
                rounds = -(-len(waiting) // threads)
                number, (key, program) = waiting.pop()
                future = client.submit(_timed(program, deadline, rounds), key=f"mipnet-{mark}-{number}", pure=False)
                running[future] = key
                results.add(future)

        submit(threads)
        for future, value in results:
            key = running.pop(future)
            if future.status != "finished":
                raise _failure(key, future)
            future.release()
            submit(1)
            yield key, value


def _failure(key: object, future: Future[Any]) -> Exception:
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return SolverFailure(
            f"program {key}: {PROCESS_DEATHS_MAX + 1} processes died while they ran it; is there enough memory? Try fewer workers"
        )
    if isinstance(error, Exception):
        return _named(key, error)
    return SolverFailure(f"program {key}: it was cancelled by the scheduler; start again, with the same scheduler or without")

"""The client of dask.distributed through which programs run: that of a given scheduler, or of a local cluster of processes."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mipnet.errors import BackendMissing, InputError
from mipnet.solving.scheduler_check import SCHEDULER_EXPECTED, check_scheduler

if TYPE_CHECKING:
    from distributed import Client

EnteredT = TypeVar("EnteredT")

PROCESS_DEATHS_MAX = 3
"""A program is run again after this number of its processes have died; if the next one dies too, the program fails."""

SCHEDULER_SECONDS_MAX = 10
"""Seconds to wait for a scheduler that is given by its address, and for its first worker."""


@contextmanager
def entered(context: AbstractContextManager[EnteredT]) -> Iterator[EnteredT]:
    """Enter a context in another thread; Ctrl-C meanwhile is raised at once, and that thread leaves the context again.

    A cluster that is cut short in the middle of its start cannot be closed.
    """
    found, failed, done, lock, left = list[EnteredT](), list[BaseException](), threading.Event(), threading.Lock(), threading.Event()

    def enter() -> None:
        try:
            found.append(context.__enter__())
        except BaseException as error:  # raised in the calling thread
            failed.append(error)
        with lock:
            done.set()
        if left.is_set() and not failed:
            context.__exit__(None, None, None)

    threading.Thread(target=enter, name="start of workers").start()
    interrupted = False
    try:
        while not done.wait(0.1):
            pass
    except KeyboardInterrupt:
        with lock:
            if not done.is_set():
                left.set()
                raise
        interrupted = True
    if failed:
        raise failed[0]
    with ExitStack() as stack:
        stack.push(context.__exit__)
        if interrupted:
            raise KeyboardInterrupt
        yield found[0]


@contextmanager
def dask_client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """Yield a client of the scheduler, or of a local cluster that is closed at the end; distributed logs nothing meanwhile."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise BackendMissing("programs run in parallel by dask.distributed: pip install mipnet[parallel], or use 0 workers") from None
    settings = {"distributed.scheduler.allowed-failures": PROCESS_DEATHS_MAX, "distributed.admin.large-graph-warning-threshold": "16GiB"}
    with _silenced(), dask.config.set(settings), ExitStack() as stack:
        if scheduler is not None:
            check_scheduler(scheduler, SCHEDULER_SECONDS_MAX)
        address = stack.enter_context(_cluster(workers)).scheduler_address if scheduler is None else scheduler
        try:
            client = stack.enter_context(Client(address, timeout=SCHEDULER_SECONDS_MAX, set_as_default=False))
            client.wait_for_workers(1, timeout=SCHEDULER_SECONDS_MAX)
        except Exception as error:
            problem = f"the scheduler at `{address}` cannot be used ({' '.join(str(error).split())[:160] or type(error).__name__})"
            raise InputError(f"{problem}; {SCHEDULER_EXPECTED}") from None
        yield client


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Yield a local cluster of spawned processes with one thread each, without dashboard or memory limit, and close it at the end.

    Closing raises AssertionError if distributed is just about to start a worker again in place of one that died.  Then the cluster is
    closed once more, and the error that ended the programs stays the one that is raised.
    """
    from distributed import LocalCluster
    from distributed.utils import LoopRunner

    runner = LoopRunner()
    with _ctrl_c_blocked():
        runner.start()  # a thread, which starts the processes
    cluster = LocalCluster(
        n_workers=workers,
        loop=runner.loop,
        processes=True,
        threads_per_worker=1,
        memory_limit=0,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        preload="mipnet.solving.dask_client",
    )
    try:
        yield cluster
    finally:
        try:
            cluster.close()
        except AssertionError:
            with suppress(AssertionError):
                cluster.close()
        runner.stop()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block SIGINT in the threads that are started inside, and in the processes that these start: a terminal sends Ctrl-C to all of them.

    So no worker prints a traceback if Ctrl-C comes while it starts, before `dask_setup` has run.  Windows has no such masks.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would end the block in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C in a worker of the local cluster; the process that started it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the log of distributed, which reports killed workers at length although their programs run again."""
    log = logging.getLogger("distributed")
    before, log.propagate = (log.level, log.propagate), False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]

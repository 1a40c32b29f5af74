"""A first question to a dask scheduler, with a deadline: `distributed.Client` waits for ever for one that does not answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from mipnet.errors import InputError

SCHEDULER_EXPECTED = "expected the address of a dask scheduler with workers, such as tcp://10.0.0.1:8786"


def check_scheduler(address: str, seconds: float) -> None:
    """Raise `InputError` unless a dask scheduler answers at an address within ``seconds``.

    The question runs in a thread and in an event loop of its own, so that it ends in time, also in a program that has a loop.
    """
    _check_address(address)
    found: list[BaseException | Any] = []

    def run() -> None:
        try:
            found.append(asyncio.run(asyncio.wait_for(_identity(address, seconds), seconds)))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(2 * seconds)
    answer = found[0] if found else TimeoutError()
    if not isinstance(answer, dict) or answer.get("type") != "Scheduler":
        raise _refused(address, _reason(address, answer, seconds))


def _refused(address: str, why: str) -> InputError:
    return InputError(f"the scheduler at `{address[:100]}` cannot be used ({why}); {SCHEDULER_EXPECTED}")


def _check_address(address: str) -> None:
    """Raise `InputError` for a protocol that dask does not have, and for an address without a port."""
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    try:
        scheme, place = parse_address(address)
        get_backend(scheme)
        if scheme != "inproc":
            parse_host_port(place)
    except (ValueError, ImportError) as error:
        raise _refused(address, " ".join(str(error).split())[:160]) from None


async def _identity(address: str, seconds: float) -> Any:
    """Return what a scheduler says about itself."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=seconds, **Security().get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        return await comm.read()
    finally:
        comm.abort()


def _reason(address: str, answer: Any, seconds: float) -> str:
    """Return why an address is no scheduler: the system's words for what it refuses, and otherwise what is known about the answer."""
    scheme = address.partition("://")[0] if "://" in address else "tcp"
    said = " ".join(str(answer).split())[:160] or type(answer).__name__
    if isinstance(answer, TimeoutError):
        return f"it does not answer within {seconds:g} s"
    if isinstance(answer, TypeError) and scheme in ("tls", "wss"):
        return f"{scheme}:// needs certificates, which are set in dask's configuration, under distributed.comm.tls"
    if isinstance(answer, OSError | UnicodeError):
        return said
    if isinstance(answer, BaseException) and scheme not in ("tcp", "tls"):
        return f"{scheme}:// does not work here: {said}"
    return "what answers there is no dask scheduler"  # its bytes, read as sizes, give a MemoryError, a ValueError or a struct.error

"""A Ray cluster to work on: one that runs, or one of this machine that is started, and stopped again."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cellscribe.engine.errors import UsageError

_CONNECT_SECONDS = 10.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True)
class Machines:
    """What a cluster has: CPUs and GPUs in all, and CPUs of its largest machine."""

    cpus: int
    gpus: int
    most_cpus: int


@contextmanager
def cluster(address: str | None, local_cpus: int) -> Iterator[Machines]:
    """Join a cluster, and leave it again.

    Parameters
    ----------
    address
        Of its head; None takes ``RAY_ADDRESS``, and without that starts a cluster of this machine.
    local_cpus
        CPUs that one of this machine offers.

    Raises
    ------
    UsageError
        When Ray is not installed, or nothing answers at the address.
    """
    ray = _ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _join(ray, address or os.environ.get("RAY_ADDRESS") or "local", local_cpus)
    try:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
        yield _machines(ray.nodes())
    finally:
        if is_ours:
            ray.shutdown()


def _ray() -> Any:
    os.environ.update(_ENVIRONMENT)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--engine ray needs Ray; `pip install 'cellscribe[ray]'`, or use --engine local.") from error
    return ray


def _join(ray: Any, address: str, local_cpus: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "include_dashboard": None}
    if address == "local":
        quiet |= {"include_dashboard": False, "num_cpus": local_cpus}
    try:
        _check_head(address)
        with _without_stderr():
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"no Ray cluster can be joined at {address} ({reason}); start one with `ray start --head`, or leave "
            "--ray-address out."
        ) from error


def _check_head(address: str) -> None:
    """Raise OSError unless something answers at HOST:PORT; Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what libraries write to stderr by themselves off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _machines(nodes: list[Mapping[str, Any]]) -> Machines:
    alive = [one["Resources"] for one in nodes if one["Alive"]]
    cpus = [int(one.get("CPU", 0)) for one in alive]
    return Machines(sum(cpus), int(sum(one.get("GPU", 0) for one in alive)), max(cpus, default=0))

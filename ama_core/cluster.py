"""Ray, where it is installed: the engine behind `--engine ray`, on this machine or on the cluster that RAY_ADDRESS names.

Safe defaults: a cluster of its own listens on the loopback address alone and has no dashboard, no usage statistics are sent,
and workers run at normal priority (Ray's default is a low one). A cluster that was started elsewhere keeps its own settings.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ama_core.errors import ConfigError

RETRIES = 3  # how often a task is begun again whose worker died
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@contextmanager
def cluster() -> Iterator[Any]:
    """Meanwhile Ray runs; yields its module. Raises ConfigError where it is not installed or cannot be reached."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ConfigError('--engine ray needs Ray: pip install ".[scale]".') from None
    address = os.environ.get("RAY_ADDRESS")
    own = (
        {}
        if address
        else {
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "num_cpus": os.cpu_count(),
            "num_gpus": torch.cuda.device_count(),
        }
    )
    try:
        ray.init(address=address or "local", logging_level="ERROR", log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Ray cannot be reached at {address or 'this machine'}: {error}.") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def slots(ray: Any) -> int:
    """How many tasks run at once: one a GPU, or one a core where there are none."""
    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0)) or int(found.get("CPU", 1)))


class Task:
    """A call of `function` on the cluster, seen as a process (see `runs.processes.Scheduler`).

    It has a GPU, or a core where there are none. Where its worker dies, it begins again on another, up to RETRIES times: what
    it does must go on where it stopped.

    Args:
        fresh: whether its worker ends with it, which costs some seconds and returns all memory.

    Attributes:
        returncode: 0 once it is done, 1 where it failed; None before. error: what it raised.
    """

    pid = None  # of no process on this machine

    def __init__(self, ray: Any, function: Callable[..., Any], *arguments, fresh: bool = False):
        self.ray, self.returncode, self.error, self.result = ray, None, None, None
        needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        self.reference = ray.remote(max_retries=RETRIES, max_calls=int(fresh), **needs)(function).remote(*arguments)

    def poll(self) -> int | None:
        if self.returncode is None and self.ray.wait([self.reference], timeout=0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self.ray.wait([self.reference], timeout=timeout)[0]:
                raise subprocess.TimeoutExpired("a task on the cluster", timeout)
            self._end()
        return self.returncode

    def terminate(self) -> None:
        self.ray.cancel(self.reference)

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)

    def _end(self) -> None:
        try:
            self.result, self.returncode = self.ray.get(self.reference), 0
        except Exception as error:
            self.error, self.returncode = getattr(error, "cause", None) or error, 1

"""The runs of a sweep as tasks of Ray, on whatever machines its cluster has."""

from __future__ import annotations

import gc
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from frostline.errors import ClusterError, FrostlineError, MissingExtraError, SettingsError
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.runs.sweep.worker import Worker
from frostline.training.shared_pass import SharedPass

if TYPE_CHECKING:
    import ray

_RETRIES = 3  # of a task whose process or machine died
_PATIENCE = 5.0  # seconds until an address is taken for one where nothing answers
_TO_CLEAR = 30.0  # seconds that machines have to clear away what they stored


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a Ray cluster for a while; a connection that is there already is used, and stays.

    Args:
        address: As Ray knows it: ``"auto"``, ``"local"``, ``"host:port"``, ``"ray://host:port"``; None for none.

    Raises:
        MissingExtraError: If Ray is not installed.
        SettingsError: If no cluster answers there.
    """
    if address is None:
        yield
        return
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            "--ray needs Ray, which is not installed.\nInstall it: pip install 'frostline[ray]'"
        ) from None
    if ray.is_initialized():
        yield
        return
    if address not in {"auto", "local"}:
        refuse_silent(address)
    try:
        begun_here = {"include_dashboard": False} if address == "local" else {}
        ray.init(address, log_to_driver=False, logging_level="ERROR", **begun_here)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        raise _unreachable(address, " ".join(str(error).split())) from error
    try:
        yield
    finally:
        ray.shutdown()


def refuse_silent(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would wait for it for long.

    Raises:
        SettingsError: If it is none, or nothing listens.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"--ray is {address!r}.\nGive auto, local, HOST:PORT, or ray://HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from None


def _unreachable(address: str, reason: str) -> SettingsError:
    said = reason.partition(". ")[0].removesuffix(".")[:160]
    return SettingsError(
        f"--ray is {address!r}, and no Ray cluster can be used there: {said}.\n"
        "Start one ('ray start --head'), or give --ray local; if a cluster asks for a token, set RAY_AUTH_MODE=token."
    )


@dataclass(frozen=True)
class _Job:
    """What the tasks of one sweep have in common.

    Attributes:
        token: Tells it from others.
        worker: Where Ray keeps the worker, in a list: so it is read once per process, and not for each task.
        stores: The folder of stores of the machine that the sweep was called on.
        tracked: Its folder for the files of trackers.
    """

    token: str
    worker: list[ray.ObjectRef] = field(compare=False)
    stores: Path = field(compare=False)
    tracked: Path = field(compare=False)

    @property
    def own(self) -> Path:
        """The folder of stores of a machine that does not see the one of the sweep."""
        return Path(tempfile.gettempdir()) / f"frostline-sweep-{self.token}"


class Cluster:
    """Runs trials on a Ray cluster; one whose process or machine dies is run again.

    Model and rows are sent to each process once. Machines that see the sweep's folder share its stores; any other fills
    stores of its own, which are cleared away when the block of a ``with`` ends.

    Args:
        worker: What runs them here.
        seeds: Of all trials.
    """

    def __init__(self, worker: Worker, seeds: Iterable[int]) -> None:
        import ray

        for seed in seeds:
            worker.draw(seed)  # so that no machine needs the model's files
        stores, tracked = worker.stores.absolute(), worker.tracked.absolute()
        stores.mkdir(parents=True, exist_ok=True)
        token = token_hex(8)
        (stores / token).touch()
        self._job = _Job(token, [ray.put(worker)], stores, tracked)
        gpus = float(worker.may_use_cuda and ray.cluster_resources().get("GPU", 0) > 0)
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_retries": _RETRIES}
        self._fill, self._run = (ray.remote(**options)(task) for task in (_fill_stores, _run_trial))

    def fill(self, told: Callable[[int, int], None]) -> SharedPass:
        """Fill the stores of all frost lines in one pass, on one of the machines."""
        told(0, 1)
        done: SharedPass = _result(self._fill.remote(self._job))
        return done

    def results(self, trials: Sequence[Trial], report_to: Sequence[str] = ()) -> Iterator[TrialResult]:
        """Run trials, as many at once as the cluster has room for, and yield what comes of each as it is done.

        Raises:
            ClusterError: If one failed, and was not to be saved by running it again.
            FrostlineError: As running it here raises.
        """
        import ray

        waiting = [self._run.remote(self._job, trial, tuple(report_to)) for trial in trials]
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                yield _result(done[0])
        finally:
            for task in waiting:
                ray.cancel(task)  # by force, Ray 2.60 can end this process where a task ends just then

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, *_: object) -> None:
        """Have each machine clear away the stores of its own."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remove = ray.remote(num_cpus=0)(_clear)
        there = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        strategies = [NodeAffinitySchedulingStrategy(node, soft=True) for node in there]
        tasks = [remove.options(scheduling_strategy=strategy).remote(self._job) for strategy in strategies]
        ray.wait(tasks, num_returns=len(tasks), timeout=_TO_CLEAR)


def _result(task: Any) -> Any:
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, FrostlineError):
            raise cause from None
        said = " ".join(str(cause or error).split())[:200]
        raise ClusterError(
            f"A run on the Ray cluster failed: {type(cause or error).__name__}: {said}\n"
            "The runs that are done are kept. Mend that, then go on with --resume."
        ) from error


@cache
def _prepared(job: _Job) -> tuple[Worker, SharedPass]:
    """The worker of this process, in a task of Ray: it finds the machine's stores full."""
    import ray

    worker: Worker = ray.get(job.worker[0])
    if not (job.stores / job.token).exists():
        worker.stores, worker.tracked = job.own, Path(tempfile.gettempdir()) / f"frostline-tracked-{job.token}"
        worker.stores.mkdir(exist_ok=True)
    else:
        worker.stores, worker.tracked = job.stores, job.tracked
    with FileLock(worker.stores / "filling.lock"):  # the others of this machine wait, and find all there
        shared = worker.fill()
    gc.freeze()  # as `not_collected` does
    return worker, shared


def _fill_stores(job: _Job) -> SharedPass:
    return _prepared(job)[1]


def _run_trial(job: _Job, trial: Trial, report_to: tuple[str, ...]) -> TrialResult:
    return _prepared(job)[0].run(trial, report_to)


def _clear(job: _Job) -> None:
    shutil.rmtree(job.own, ignore_errors=True)

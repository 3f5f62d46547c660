"""Trials on the nodes of a Ray cluster, a population at a time each."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors.base import Executor, NothingLeft
from glideslope.trials.executors.groups import Groups
from glideslope.trials.executors.pool import lost
from glideslope.trials.executors.shipment import shipment
from glideslope.trials.executors.torchrun import shared_records
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec
from glideslope.trials.workers import SETTINGS, environment

LOOK_SECONDS = 2.0
"""So often the cluster is asked for room: new nodes wait no longer for their workers."""
ANSWER_SECONDS = 10.0
"""So long a cluster may take to answer at its address. Ray itself would try for two minutes."""
LONELY_SECONDS = 60.0
"""After so long without any worker the user is told what the cluster has and what a worker takes."""
MOST_STILLBORN = 5
"""So many workers in a row may die before they are ready; then something is wrong with the nodes, and not with one."""
SLACK = 1e-9
"""Shares of a node are decimal fractions: three of 0.1 must fit into 0.3."""

_log = logging.getLogger(__name__)


class ClusterError(ConnectionError):
    """The cluster cannot be joined, or its nodes cannot run trials. What was stored before is safe."""


@dataclass
class Worker:
    """An actor, and the trials it is at.

    Args:
        actor: Ray's handle.
        where: the node it lives on; "" as long as it has not answered.
        specs: what it has been given.
    """

    actor: Any
    where: str = ""
    specs: tuple[TrialSpec, ...] = ()


@final
class RayCluster(Executor):
    """Trials in actors on every node of a Ray cluster; which of them run together is as in `Populations`.

    An actor keeps imports, data and compiled programs from one population to the next. Nodes that join get actors while
    the study runs. If an actor or its node dies, its trials are queued again one by one; one at which an actor dies
    again is recorded as failed. Records come back to this process, which alone writes the store.

    The cluster is joined when the first trial is waited for. This package, and the modules of the tasks and optimizers
    queued until then, are shipped to the nodes; what pip has installed here must be installed there. Variables of this
    process named GLIDESLOPE_… hold on nodes that have none of their own. Checkpoints are kept if the nodes see the
    store's folder under its name here.

    A process that has joined Ray already is left as it is: nothing is shipped, and the connection stays open.

    Args:
        address: "host:6379" of the head node; "auto" for the cluster that this machine belongs to; "local" for one of
            this machine's own, which ends with the study. None: what the environment variable RAY_ADDRESS says, else
            as "auto", else as "local".
        num_workers: how many actors. None means one wherever there is room, on the nodes that there are and on those
            that join; a number is asked for at once, which makes a cluster that scales itself grow.
        resources: what an actor takes of its node, {"CPU": 1} by default, and one per rank where there are ranks.
            {"GPU": 0.25} puts four on each GPU. An actor that takes of GPUs computes there.
        ranks: how many processes share every trial of an actor, see `Torchrun`; None for trials that are not shared.
            With {"GPU": 4} and 4 ranks, each has a GPU of its own.
    """

    name: ClassVar[str] = "ray"

    def __init__(
        self,
        address: str | None = None,
        num_workers: int | None = None,
        resources: Mapping[str, float] | None = None,
        ranks: int | None = None,
    ) -> None:
        require(num_workers is None or num_workers >= 1, "num_workers", num_workers, "num_workers >= 1")
        require(ranks is None or ranks >= 1, "ranks", ranks, "ranks >= 1")
        taken = {"CPU": float(ranks or 1)} if resources is None else dict(resources)
        sound = bool(taken) and all(0 < amount < math.inf for amount in taken.values())
        require(sound, "resources", resources, "0 < amount < inf for at least one resource")
        self._ray = _import_ray()
        self._address, self._count, self._resources = address, num_workers, taken
        gpus = taken.get("GPU", 0.0)
        enough = ranks is None or gpus == 0 or gpus >= ranks
        require(enough, "resources", resources, f"GPU >= {ranks}: each rank takes a GPU of its own")
        self._device, self._ranks = "cuda" if gpus else "cpu", ranks
        self._groups = Groups(self._device, together=ranks is None)
        self._finished: deque[tuple[TrialSpec, Record]] = deque()
        self._names: set[str] = set()
        self._joined = self._owned = False
        self._starting: dict[Any, Worker] = {}
        self._idle: list[Worker] = []
        self._busy: dict[Any, Worker] = {}
        self._next_look = self._lonely_since = 0.0
        self._stillborn = 0
        self._pace: dict[tuple[str, str], float] = {}

    def submit(self, spec: TrialSpec) -> None:
        self._groups.push(spec)
        self._names |= {spec.task.name, spec.optimizer.name}

    def next(self) -> tuple[TrialSpec, Record]:
        # Workers are fed when all that is finished has been handed out, as in `Pool`.
        while not self._finished:
            self._join()
            self._staff()
            self._feed()
            if not self._busy and not self._groups:
                raise NothingLeft
            self._collect()
        return self._finished.popleft()

    def close(self) -> None:
        self._groups.clear()
        self._finished.clear()
        if self._ray.is_initialized():
            for worker in (*self._starting.values(), *self._idle, *self._busy.values()):
                self._ray.kill(worker.actor)
        if self._owned:
            self._ray.shutdown()  # also what an interrupted `init` has left
        self._starting.clear()
        self._idle.clear()
        self._busy.clear()
        self._joined = self._owned = False

    def _join(self) -> None:
        if self._joined:
            return
        self._owned = not self._ray.is_initialized()
        if self._owned:
            _check_address(self._address or os.environ.get("RAY_ADDRESS", ""))
            # A cluster that someone else has started keeps to what they have said about statistics.
            silence = {"RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0")}
            with shipment(self._names) as paths, environment(silence):
                try:
                    self._ray.init(
                        address=self._address,
                        runtime_env={"py_modules": paths},
                        include_dashboard=False,
                        log_to_driver=False,  # what trials print would tear the progress bar
                        logging_level=logging.ERROR,
                    )
                except (ConnectionError, RuntimeError) as error:
                    raise ClusterError(f"cannot join the Ray cluster: {error}") from error
        elif self._address is not None:
            raise ValueError(f"this process has joined Ray already, so `address` must be None, but is {self._address}.")
        self._joined = True
        self._lonely_since = time.monotonic()

    def _staff(self) -> None:
        """Start workers where there is room for them."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        room = self._room()
        if room > 0:
            amounts = dict(self._resources)
            kind = self._ray.remote(Actor).options(
                num_cpus=amounts.pop("CPU", 0),
                num_gpus=amounts.pop("GPU", 0),
                memory=amounts.pop("memory", None),
                resources=amounts,
                max_restarts=0,
                runtime_env={"env_vars": SETTINGS},
            )
            variables = {name: value for name, value in os.environ.items() if name.startswith("GLIDESLOPE_")}
            for _ in range(room):
                self._ask(Worker(kind.remote(variables, self._device, self._ranks)))
        if not self._idle and not self._busy and now - self._lonely_since > LONELY_SECONDS:
            self._lonely_since = now
            _log.warning(
                "no worker for %.0f seconds: each takes %s; the cluster has %s, of which %s are free",
                LONELY_SECONDS,
                self._resources,
                self._ray.cluster_resources(),
                self._ray.available_resources(),
            )

    def _room(self) -> int:
        """How many more workers the cluster can take."""
        present = len(self._starting) + len(self._idle) + len(self._busy)
        if self._count is not None:
            return self._count - present
        if self._starting:
            return 0  # the cluster's books may not have them yet
        # Both bounds: others may use the cluster too, and what is free may be scattered over nodes. A worker too many
        # would wait for ever, and make a cluster that scales itself grow without need.
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = sum(workers_that_fit(node, self._resources) for node in nodes)
        free = self._ray.available_resources()
        return min(most - present, *(int(free.get(name, 0) / taken + SLACK) for name, taken in self._resources.items()))

    def _ask(self, worker: Worker) -> None:
        """It is ready once it answers."""
        self._starting[worker.actor.where.remote()] = worker

    def _feed(self) -> None:
        """Give every idle worker something to do."""
        while self._idle:
            order = self._groups.take(len(self._starting) + len(self._idle) + len(self._busy), self._seconds)
            if not order.specs:
                return
            specs = self._admit(order.specs)
            if not specs:
                continue
            worker = self._idle.pop()
            worker.specs = tuple(specs)
            checkpoints = self._checkpoints
            if checkpoints is not None:
                checkpoints = replace(checkpoints, folder=checkpoints.folder.resolve())
            data = canonical([spec.to_json() for spec in specs]).encode()
            self._busy[worker.actor.run.remote(data, order.together, checkpoints)] = worker

    def _seconds(self, spec: TrialSpec) -> float:
        """How long a trial takes by itself, as far as others like it tell."""
        return spec.last_update * self._pace.get((spec.task.name, spec.optimizer.name), math.inf)

    def _collect(self) -> None:
        """Wait for an answer, but not past the next look."""
        waiting = [*self._starting, *self._busy]
        pause = max(0.0, self._next_look - time.monotonic())
        if not waiting:
            time.sleep(pause)
            return
        ready, _ = self._ray.wait(waiting, timeout=pause)
        for answer in ready:
            if answer in self._starting:
                self._welcome(answer)
            else:
                self._receive(answer)

    def _welcome(self, answer: Any) -> None:
        worker = self._starting.pop(answer)
        errors = self._ray.exceptions
        known = bool(worker.where)
        try:
            worker.where = self._ray.get(answer)
        except errors.RayError as error:
            raised = isinstance(error, errors.RayTaskError) or getattr(error, "actor_init_failed", False)
            if raised or isinstance(error, errors.RuntimeEnvSetupError):
                reason = _last_line(error) if raised else str(error)
                raise ClusterError(
                    f"a worker cannot start: {reason}. The nodes need what is installed here, in the same versions."
                ) from error
            self._ray.kill(worker.actor)
            if known:
                _log.warning("the idle worker on %s is lost", worker.where)
                return
            self._stillborn += 1
            _log.warning("a worker died while it started: %s", _first_line(error))
            if self._stillborn == MOST_STILLBORN:
                raise ClusterError(f"{MOST_STILLBORN} workers in a row died while they started: {error}") from error
            return
        self._stillborn = 0
        self._idle.append(worker)
        if not known:
            _log.info("worker ready on %s; %d in all", worker.where, len(self._idle) + len(self._busy))

    def _receive(self, answer: Any) -> None:
        worker = self._busy.pop(answer)
        specs, worker.specs = list(worker.specs), ()
        errors = self._ray.exceptions
        try:
            data = self._ray.get(answer)
        except errors.RayTaskError:
            raise  # trials record their errors, so this is one of ours
        except errors.RayError as error:
            self._mourn(worker, specs, error)
            return
        self._idle.append(worker)
        if data is None:
            self._groups.part(specs)
            return
        for spec, item in zip(specs, json.loads(data), strict=True):
            record = Record.from_json(item)
            path = {"method": "loop", **record.path, "executor": self.name}
            self._finished.append((spec, replace(record, path=path)))
            if path["method"] == "loop" and record.cost.updates:
                seconds = record.cost.training_seconds + record.cost.evaluation_seconds
                self._pace[spec.task.name, spec.optimizer.name] = seconds / record.cost.updates

    def _mourn(self, worker: Worker, specs: list[TrialSpec], error: Exception) -> None:
        self._ray.kill(worker.actor)  # it may live, out of reach
        twice = self._groups.bury(specs)
        _log.warning(
            "the worker on %s is lost; of its %d trials %d are queued again: %s",
            worker.where,
            len(specs),
            len(specs) - len(twice),
            _first_line(error),
        )
        reason = f"{error}\na worker on {worker.where} was lost during this trial, and another one before."
        self._finished += [(spec, replace(lost(spec, self.name, None), error=reason)) for spec in twice]
        # Its node may have died with others on it. A trial must not be blamed for meeting them one after the other.
        for other in self._idle:
            self._ask(other)
        self._idle.clear()


class Actor:
    """What lives on a node.

    Args:
        variables: of the environment, for a node that has none of these names.
        device: where trials that are not shared are computed, "cpu" or "cuda".
        ranks: that share every trial; None for trials that are not shared.
    """

    def __init__(self, variables: Mapping[str, str], device: str = "cpu", ranks: int | None = None) -> None:
        for name, value in variables.items():
            os.environ.setdefault(name, value)
        self._device, self._ranks = device, ranks

    def where(self) -> str:
        """The node's name; answered when all that trials need is imported."""
        import ray

        import glideslope.trials.population  # noqa: F401

        return f"{socket.gethostname()}, node {ray.get_runtime_context().get_node_id()[:8]}"

    def run(self, data: bytes, together: bool, checkpoints: Checkpoints | None) -> bytes | None:
        """Specs in, records out; None for a population that does not pay."""
        from glideslope.trials.device import arithmetic_on
        from glideslope.trials.population import pays, run_population
        from glideslope.trials.run import run_trial

        if checkpoints is not None and not checkpoints.folder.parent.is_dir():
            checkpoints = None  # the store lies on another machine's disk
        specs = [TrialSpec.from_json(item) for item in json.loads(data)]
        if together and not pays(specs[0], self._device):
            return None
        if self._ranks is not None:
            records = shared_records(specs, self._ranks, checkpoints)
        elif together:
            records = run_population(specs, device=self._device)
        else:
            records = [
                run_population([spec], device=self._device)[0]
                if pays(spec, self._device)
                else run_trial(spec, checkpoints, arithmetic_on(self._device, spec.precision))
                for spec in specs
            ]
        return canonical([record.to_json() for record in records]).encode()


def workers_that_fit(node: Mapping[str, float], share: Mapping[str, float]) -> int:
    """How many workers a node has room for.

    Args:
        node: what it has, by name.
        share: what a worker takes of it, by name. A GPU is never shared across its edge: 0.4 fits twice into each.

    >>> workers_that_fit({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1})
    8
    >>> workers_that_fit({"CPU": 8.0, "GPU": 2.0}, {"GPU": 0.4})
    4
    """
    counts = []
    for name, taken in share.items():
        total = node.get(name, 0.0)
        whole = name == "GPU" and taken < 1
        counts.append(int(total) * int(1 / taken + SLACK) if whole else int(total / taken + SLACK))
    return min(counts)


def _check_address(address: str) -> None:
    """Try whether anybody listens, where an address names a port."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"nobody answers at {address} ({error}). Start the head node with `ray start --head --port {port}`, "
            "or give the address that it has printed."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError('`ray` is not installed. Install it with: pip install "glideslope[ray]"') from error
    return ray

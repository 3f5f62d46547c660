"""A Ray cluster of two nodes on this machine: one dies in mid-study, one joins, workers die; nothing is lost."""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from specs import COMMAND, SUPPORT, command_environment, make_spec
from waiting import wait_until

import glideslope
from glideslope.cli.execution import make_executor
from glideslope.core.spec import canonical
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors import Populations, RayCluster
from glideslope.trials.executors.ray import Actor, ClusterError, workers_that_fit
from glideslope.trials.executors.shipment import own_code, shipment
from glideslope.trials.planner import run_study
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.store import FILE, Store
from glideslope.trials.workers import SETTINGS

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "glideslope[ray]"')
OBJECT_STORE = 80 * 2**20
DETECTION = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 1000}

TELLING = """
import os
from dataclasses import dataclass
from importlib.metadata import distribution

import telling_helper
import torch
from tiny_tasks import Regression

import glideslope


@dataclass(frozen=True)
class Telling(Regression):
    def measured(self, errors):
        facts = (
            "py_modules_files" in __file__,
            "py_modules_files" in telling_helper.__file__,
            "py_modules_files" in glideslope.__file__,
            "py_modules_files" in str(distribution("glideslope").locate_file("")),
            os.environ.get("GLIDESLOPE_GREETING") == "hello",
            all(os.environ.get(name) == value for name, value in telling_helper.SETTINGS.items()),
            torch.get_num_threads() == 1,
        )
        return torch.full_like(errors, float("".join("01"[fact] for fact in facts)))
"""


def children(pid):
    """Processes started by a process, and by those, and so on."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found, fresh = [], {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found += fresh
    return found


def command_line(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def actors(node, doing=""):
    """Process ids of a node's workers; Ray writes what they do into their command lines."""
    return [pid for pid in children(raylet(node)) if command_line(pid).startswith(f"ray::Actor{doing}")]


def raylet(node):
    (process,) = node.all_processes["raylet"]
    return process.process.pid


def kill_machine(node):
    """All of a node at once, as when its power fails."""
    for pid in [raylet(node), *children(raylet(node))]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head and a second node with one core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": DETECTION})
        try:
            cluster.add_node(**node)
            yield cluster
        finally:
            cluster.shutdown()


@dataclass(frozen=True)
class Cell:
    """A cell that wants all of its specs at once."""

    specs: tuple

    def next_specs(self, records):
        return [spec for spec in self.specs if spec.trial_id not in records]


@dataclass(frozen=True)
class Patience:
    """A cell that wants one more trial, as long as something has not come to pass; 200 at most."""

    over: object

    def next_specs(self, records):
        specs = (make_spec("tiny_tasks:Slow", updates=20, seed=1000 + number, optimizer=LONE) for number in range(200))
        missing = [spec for spec in specs if spec.trial_id not in records]
        return [] if self.over() else missing[:1]


LONE = "torch.optim:Rprop"
"""An optimizer that has no batched form: its trials run one by one."""
DENSE = tuple(make_spec("tiny_tasks:Slow", seed=seed, updates=30 + seed % 3) for seed in range(40))
SINGLE = tuple(make_spec("tiny_tasks:Slow", seed=seed, updates=15, optimizer=LONE) for seed in range(8))
SHORT = tuple(make_spec("tiny_tasks:Regression", seed=seed, updates=3, optimizer=LONE) for seed in range(40))
DEADLY = tuple(make_spec("tiny_tasks:Killing", seed=seed) for seed in range(4))
FAULTY = (make_spec("tiny_tasks:Raising"),)
CONVOLUTIONS = tuple(make_spec("dense_tasks:Convolution", seed=seed, updates=3) for seed in range(3))
"""Could run together, but it does not pay."""


@dataclass
class Flight:
    """A study on the cluster while things happen to it."""

    records: dict
    told: object
    log: list = field(default_factory=list)
    orders: list = field(default_factory=list)
    killed: list = field(default_factory=list)
    joined: list = field(default_factory=list)
    checkpoints: set = field(default_factory=set)

    def lines(self, *words):
        return [line for line in self.log if all(word in line for word in words)]


class Listener(logging.Handler):
    def __init__(self, lines):
        super().__init__(logging.INFO)
        self.lines = lines

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def flight(cluster, tmp_path_factory):
    """A study of some hundred trials: workers die at one of them, its second node dies at work, a third one joins."""
    folder = tmp_path_factory.mktemp("flight")
    (folder / "telling.py").write_text(TELLING)
    (folder / "telling_helper.py").write_text(f"SETTINGS = {SETTINGS}")
    (second,) = cluster.worker_nodes
    logger = logging.getLogger("glideslope")
    flight = Flight({}, None)
    listener = Listener(flight.log)

    def happen(progress):
        flight.checkpoints |= {path.stem for path in Path("store", "checkpoints").glob("*.safetensors")}
        ready = flight.lines("worker ready")
        if not flight.killed and flight.checkpoints and len(ready) >= 2 and actors(second, ".run"):
            flight.killed.append(second.node_id)
            kill_machine(second)
        elif flight.killed and not flight.joined and flight.lines("is lost"):
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("GLIDESLOPE_GREETING")  # the driver's alone, and so is its folder
                patch.chdir(folder)
                third = cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
            flight.joined.append(third.node_id)

    def over():
        return bool(flight.joined and flight.lines("worker ready", flight.joined[0][:8]))

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(tmp_path_factory.mktemp("here"))  # where the nodes are not, and no module is
        patch.setenv("GLIDESLOPE_GREETING", "hello")
        patch.setattr("glideslope.trials.executors.ray.LOOK_SECONDS", 0.5)
        flight.told = make_spec("telling:Telling")
        before = logger.level
        logger.addHandler(listener)
        logger.setLevel(logging.INFO)
        try:
            with Store("store") as store, RayCluster(cluster.address) as executor:
                take = executor._groups.take
                executor._groups.take = lambda *shares: flight.orders.append(take(*shares)) or flight.orders[-1]
                cells = [Cell((*DENSE, *SINGLE, *SHORT, *CONVOLUTIONS, *DEADLY, *FAULTY, flight.told)), Patience(over)]
                run_study(cells, store, executor, happen, checkpoint_seconds=0.0)
                flight.records = store.records()
        finally:
            logger.removeHandler(listener)
            logger.setLevel(before)
            sys.modules.pop("telling", None)
            sys.modules.pop("telling_helper", None)
    return flight


@pytest.fixture(scope="module")
def oracle():
    """The same trials in processes of this machine."""
    specs = (*DENSE, *SINGLE, *SHORT, *CONVOLUTIONS)
    with Populations(1) as executor:
        for spec in specs:
            executor.submit(spec)
        return {spec.trial_id: record for spec, record in (executor.next() for _ in specs)}


@needs_ray
class TestTwoNodes:
    def test_every_record_is_there_and_equal_although_a_node_was_killed(self, flight, oracle):
        assert flight.killed
        for trial_id, record in oracle.items():
            assert canonical(flight.records[trial_id].outcome) == canonical(record.outcome)
        assert {record.status for record in oracle.values()} == {"finished"}

    def test_trials_lost_with_a_node_are_queued_again_and_said_to_be(self, flight):
        assert flight.lines("is lost", flight.killed[0][:8], "queued again")

    def test_a_node_that_joins_gets_a_worker(self, flight):
        assert flight.lines("worker ready", flight.joined[0][:8])

    def test_populations_are_the_unit_of_work(self, flight):
        paths = [flight.records[spec.trial_id].path for spec in DENSE]
        assert {(path["executor"], path["method"]) for path in paths} == {("ray", "baddbmm")}
        assert max(path["K"] for path in paths) >= 8
        paths = [flight.records[spec.trial_id].path for spec in (*SINGLE, *SHORT, *CONVOLUTIONS)]
        assert all(path == {"executor": "ray", "method": "loop", "device": "cpu", "K": 1} for path in paths)

    def test_short_trials_are_ordered_several_at_a_time_and_long_ones_singly(self, flight):
        lone = [order.specs for order in flight.orders if order.specs and not order.together]
        assert max(len(specs) for specs in lone if specs[0] in SHORT) > 1
        assert {len(specs) for specs in lone if set(specs) & set(SINGLE)} == {1}

    def test_a_trial_that_workers_die_at_is_a_failed_record_and_the_only_one(self, flight):
        statuses = [flight.records[spec.trial_id].status for spec in DEADLY]
        assert statuses == ["finished", "finished", "failed", "finished"]
        victim, record = DEADLY[2], flight.records[DEADLY[2].trial_id]
        assert (record.trial_id, record.trajectory_id) == (victim.trial_id, victim.trajectory_id)
        assert "was lost during this trial, and another one before" in record.error

    def test_an_error_of_a_trial_is_its_record(self, flight):
        record = flight.records[FAULTY[0].trial_id]
        assert record.status == "failed"
        assert "no loss today" in record.error

    def test_trials_that_run_alone_leave_checkpoints_in_the_stores_folder_if_the_nodes_see_it(self, flight):
        assert flight.checkpoints
        assert not flight.checkpoints & {spec.trial_id for spec in DENSE}

    def test_code_variables_and_settings_reach_the_nodes(self, flight):
        record = flight.records[flight.told.trial_id]
        assert record.status == "finished", record.error
        assert record.test.metric == 1111111

    def test_no_worker_is_left(self, flight, cluster):
        wait_until(lambda: not any(actors(node) for node in cluster.list_all_nodes()))


@needs_ray
class TestSessions:
    def test_a_session_of_the_callers_is_used_and_left_open(self, cluster):
        import ray

        ray.init(
            cluster.address,
            runtime_env={"env_vars": {"PYTHONPATH": str(SUPPORT)}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        try:
            spec = make_spec("tiny_tasks:Environment", updates=1)
            with RayCluster(num_workers=1) as executor:
                executor.submit(spec)
                ((_, record),) = [executor.next()]
            assert record.test.metric == 1 + 10 + 100
            assert ray.is_initialized()
            with RayCluster(num_workers=1) as executor:
                executor.submit(make_spec("tiny_tasks:Hours"))
                while not executor._busy:
                    executor._staff()
                    executor._feed()
                    executor._collect()
                wait_until(lambda: any(actors(node, ".run") for node in cluster.list_all_nodes()))
            wait_until(lambda: not any(actors(node) for node in cluster.list_all_nodes()))
            with RayCluster(cluster.address) as executor:
                executor.submit(spec)
                with pytest.raises(ValueError, match="has joined Ray already, so `address` must be None"):
                    executor.next()
        finally:
            ray.shutdown()

    @pytest.mark.parametrize(
        ("torch", "told"),
        [
            (
                "raise ImportError('no torch here')",
                "a worker cannot start: ImportError: no torch here. The nodes need what is installed here",
            ),
            ("import os; os.kill(os.getpid(), 9)", "2 workers in a row died while they started"),
        ],
    )
    def test_nodes_that_cannot_run_trials(self, torch, told, cluster, tmp_path, monkeypatch):
        import ray

        monkeypatch.setattr("glideslope.trials.executors.ray.MOST_STILLBORN", 2)
        (tmp_path / "torch.py").write_text(torch)
        session = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
        ray.init(cluster.address, runtime_env=session, log_to_driver=False, logging_level=logging.ERROR)
        try:
            with RayCluster() as executor:
                executor.submit(make_spec())
                with pytest.raises(ClusterError, match=told):
                    executor.next()
        finally:
            ray.shutdown()

    def test_an_address_where_nobody_listens_is_told_at_once(self):
        with RayCluster("127.0.0.1:9") as executor:
            executor.submit(make_spec())
            with pytest.raises(ClusterError, match=r"nobody answers at 127.0.0.1:9 .* `ray start --head --port 9`"):
                executor.next()

    def test_ctrl_c_leaves_no_workers_and_the_study_goes_on_later(self, cluster, tmp_path):
        command = (*COMMAND, "compare", "tiny_tasks:Slow", "--out", "runs", "--budgets", "5%", "--seeds", "1")
        command = (*command, "--optimizers", "sgdm", "--executor", "ray", "--ray-address", cluster.address)
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=command_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                wait_until(lambda: any(actors(node, ".run") for node in cluster.list_all_nodes()))
                os.killpg(process.pid, signal.SIGINT)
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
        assert process.returncode == 130
        assert "stopped. What is finished is kept: run the same command again to go on." in err
        assert "Traceback" not in err
        assert out == ""
        assert (tmp_path / "runs" / FILE).exists()
        wait_until(lambda: not any(actors(node) for node in cluster.list_all_nodes()))


class TestWithoutACluster:
    def test_ray_that_is_missing_is_named_with_the_way_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        wanted = r'`ray` is not installed. Install it with: pip install "glideslope\[ray\]"'
        with pytest.raises(ImportError, match=wanted):
            RayCluster()
        with pytest.raises(ValueError, match=wanted):
            make_executor("ray", None)

    @pytest.mark.parametrize("options", [{"ray_address": "auto"}, {"ray_resources": "CPU=1"}])
    def test_options_of_ray_belong_to_ray(self, options):
        with pytest.raises(ValueError, match="belong to --executor ray, not to population"):
            make_executor("population", None, **options)

    @pytest.mark.parametrize("text", ["CPU", "CPU=", "=1,CPU", "CPU=one"])
    def test_resources_that_cannot_be_read(self, text):
        with pytest.raises(ValueError, match=r"cannot read the resources .* Write CPU=1 or CPU=1,GPU=0.25"):
            make_executor("ray", None, None, text)

    @pytest.mark.parametrize("resources", [{}, {"CPU": 0}, {"GPU": float("inf")}, {"GPU": float("nan")}])
    def test_amounts_that_are_none(self, resources):
        with pytest.raises(ValueError, match=r"`resources` is .*, but must satisfy 0 < amount < inf for at least one"):
            RayCluster(resources=resources)

    def test_no_workers_at_all_is_refused(self):
        with pytest.raises(ValueError, match="`num_workers` is 0, but must satisfy num_workers >= 1"):
            RayCluster(num_workers=0)

    @pytest.mark.parametrize(
        ("node", "share", "count"),
        [
            ({"CPU": 4.0}, {"CPU": 1}, 4),
            ({"CPU": 4.0}, {"CPU": 3}, 1),
            ({"CPU": 4.0}, {"GPU": 1}, 0),
            ({"CPU": 0.3}, {"CPU": 0.1}, 3),
            ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1, "GPU": 0.25}, 8),
            ({"CPU": 8.0, "GPU": 2.0}, {"GPU": 0.4}, 4),
            ({"CPU": 8.0, "GPU": 2.0}, {"GPU": 2}, 1),
        ],
    )
    def test_room_on_a_node(self, node, share, count):
        assert workers_that_fit(node, share) == count

    @needs_ray
    def test_ranks_want_a_gpu_each(self):
        with pytest.raises(ValueError, match="must satisfy GPU >= 4: each rank takes a GPU of its own"):
            RayCluster(resources={"GPU": 2}, ranks=4)
        assert RayCluster(resources={"GPU": 4}, ranks=4)

    @needs_ray
    def test_a_worker_of_ranks_takes_a_core_for_each(self):
        assert RayCluster(ranks=3)._resources == {"CPU": 3.0}

    def test_ranks_of_an_actor_share_its_trials(self):
        specs = [make_spec(optimizer=LONE, seed=seed) for seed in (1, 2)]
        order = canonical([spec.to_json() for spec in specs]).encode()
        found = Actor({}, ranks=2).run(order, False, None)
        records = [Record.from_json(item) for item in json.loads(found)]
        assert [record.trial_id for record in records] == [spec.trial_id for spec in specs]
        for spec, record in zip(specs, records, strict=True):
            assert record.path["ranks"] == 2
            assert record.series.train_loss == pytest.approx(run_trial(spec).series.train_loss, rel=1e-5)

    @needs_ray
    def test_ranks_on_a_cluster(self):
        spec = make_spec(optimizer=LONE)
        with RayCluster("local", num_workers=1, ranks=2) as executor:
            executor.submit(spec)
            _, record = executor.next()
        assert (record.error, record.path["executor"], record.path["ranks"]) == ("", "ray", 2)
        assert record.series.train_loss == pytest.approx(run_trial(spec).series.train_loss, rel=1e-5)

    def test_a_store_on_another_machines_disk_is_not_made_up_for_checkpoints(self, tmp_path):
        elsewhere = Checkpoints(tmp_path / "elsewhere" / "checkpoints", every_seconds=0.0)
        order = canonical([make_spec(optimizer=LONE).to_json()]).encode()
        assert Actor({}).run(order, False, elsewhere) is not None
        assert list(tmp_path.iterdir()) == []


class TestShipment:
    def test_the_package_goes_with_its_metadata(self):
        with shipment(["digits-mlp", "sgdm"]) as paths:
            package, metadata = map(Path, paths)
            assert package == Path(glideslope.__file__).parent
            assert metadata.name == f"glideslope-{glideslope.__version__}.dist-info"
            assert "digits-mlp = glideslope.tasks.digits:DigitsMLP" in (metadata / "entry_points.txt").read_text()
            assert f"Version: {glideslope.__version__}" in (metadata / "METADATA").read_text()
        assert not metadata.exists()

    def test_own_modules_go_with_imported_neighbours_and_installed_ones_stay(self, tmp_path, monkeypatch):
        for name in ("mine", "neighbour", "stranger"):
            (tmp_path / f"{name}_for_ray.py").touch()
        (tmp_path / "house_for_ray").mkdir()
        (tmp_path / "house_for_ray" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.import_module("neighbour_for_ray")
        try:
            assert own_code(["mine_for_ray"]) == [tmp_path / "mine_for_ray.py", tmp_path / "neighbour_for_ray.py"]
            assert tmp_path / "house_for_ray" in own_code(["house_for_ray"])
            assert own_code(["torch", "json", "no_such_module_anywhere"]) == []
        finally:
            del sys.modules["neighbour_for_ray"]

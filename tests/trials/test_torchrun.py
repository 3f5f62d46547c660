"""Trials that ranks share: the trial alone, computed by several. Real processes, gloo."""

import json
import math
import multiprocessing
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import shared_tasks
import tiny_tasks
import torch
from specs import SUPPORT, command_environment, make_spec
from waiting import wait_until

from glideslope.cli.execution import make_executor
from glideslope.core.spec import canonical
from glideslope.trials.arithmetic import FLOAT32
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors import Torchrun
from glideslope.trials.executors.base import NothingLeft
from glideslope.trials.memory import explained
from glideslope.trials.record import Record, details
from glideslope.trials.run import batches, evaluate, run_trial
from glideslope.trials.share import Share
from glideslope.trials.task import of_rows
from glideslope.trials.trial import PROBES

LONG = {"updates": 40, "eval_every": 6, "probes": PROBES}
SPECS = {
    "sgdm": make_spec("dense_tasks:Dense", "rex", rate=0.1, **LONG),
    "adam": make_spec("dense_tasks:Dense", "one_cycle", optimizer="adam", rate=0.01, **LONG),
    "odd batch": make_spec("shared_tasks:Odd", "rex", rate=0.1, **LONG),
    "odd batch, adam": make_spec("shared_tasks:Odd", "cosine", optimizer="adam", rate=0.01, **LONG),
    "unreached weights": make_spec(
        "shared_tasks:Special", "rex", optimizer="sgdm(momentum=0, weight_decay=0.1)", rate=0.1, **LONG
    ),
    "steered": make_spec("tiny_tasks:Random", "plateau(patience=0)", rate=0.1, **LONG),
    "resumed": make_spec("shared_tasks:Odd", "rex | plateau(patience=0)", rate=0.1, **LONG),
    "whole": make_spec("shared_tasks:Odd", "rex | plateau(patience=0)", rate=0.1, **LONG),
    "diverging": make_spec("tiny_tasks:Regression", "constant", rate=10.0, updates=2000),
    "bfloat16": make_spec("dense_tasks:Dense", "rex", rate=0.1, precision="bfloat16", **LONG),
    "metric over the split": make_spec("shared_tasks:Ordered", "rex", rate=0.1, **LONG),
    "normalised": make_spec("checkpoint_tasks:Normalised", "rex", **LONG),
}
EXACT = ("odd batch", "odd batch, adam", "unreached weights")
"""Trials in double precision."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The records of all trials, from each of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "specs.json").write_text(canonical({name: spec.to_json() for name, spec in SPECS.items()}))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=shared_tasks.work, args=(rank, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return [{name: Record.from_json(data) for name, data in records.items()} for records in found]


def all_numbers(record):
    series = record.series
    looks = [number for seen in (*record.validation, record.test) for number in (seen.loss, seen.metric)]
    probes = [*series.probes.values(), *record.measured.values()]
    return [*series.train_loss, *series.rate, *(x for values in probes for x in values), *looks]


class TestSameTrial:
    @pytest.mark.parametrize("name", ["sgdm", "adam", "steered", "metric over the split", *EXACT])
    def test_two_ranks_compute_the_trial_alone(self, name, shared):
        alone, together = run_trial(SPECS[name]), shared[0][name]
        assert together.status == alone.status == "finished"
        assert together.series.updates == alone.series.updates
        # Sums in another order: a few times the last digit, which grows over 40 updates.
        tolerance = 1e-12 if name in EXACT else 1e-5
        assert all_numbers(together) == pytest.approx(all_numbers(alone), rel=tolerance, abs=tolerance)

    def test_unreached_weights_are_a_case_of_their_own(self):
        spec = SPECS["unreached weights"]
        task = shared_tasks.Special()
        kinds = set()
        for batch, _ in batches(task, task.splits().train, spec.seeds, spec.updates):
            special = batch[0][:, 0] > 1.5
            kinds.add((bool(special[:4].any()), bool(special[4:].any())))
        assert len(kinds) >= 3  # nowhere, in both ranks, in one alone

    def test_a_controller_decides_the_same(self, shared):
        alone = run_trial(SPECS["steered"])
        assert alone.decisions
        assert [(update, gain) for update, gain, _ in shared[0]["steered"].decisions] == [
            (update, gain) for update, gain, _ in alone.decisions
        ]

    @pytest.mark.parametrize("name", SPECS)
    def test_ranks_have_the_same_numbers(self, name, shared):
        first, second = (records[name] for records in shared)
        assert canonical(first.outcome) == canonical(second.outcome)

    def test_divergence_is_everybodys(self, shared):
        alone = run_trial(SPECS["diverging"])
        for records in shared:
            assert records["diverging"].status == alone.status == "diverged"
            assert not math.isfinite(records["diverging"].series.train_loss[-1])

    def test_going_on_from_a_checkpoint_ends_in_the_same_bits(self, shared):
        resumed, whole = shared[0]["resumed"], shared[0]["whole"]
        assert whole.decisions
        assert canonical(resumed.outcome) == canonical(whole.outcome)

    def test_half_precision_by_ranks(self, shared):
        record = shared[0]["bfloat16"]
        assert record.status == "finished"
        assert details(record.path) == " (2 ranks, bfloat16)"
        # Rounded to eight bits, but of the same rows.
        alone = run_trial(SPECS["bfloat16"])
        assert record.series.train_loss == pytest.approx(alone.series.train_loss, rel=0.05)

    def test_batch_normalisation_is_refused_on_the_processor(self, shared):
        record = shared[0]["normalised"]
        assert record.status == "failed"
        assert "batch normalisation: 2 ranks on the CPU would each take the statistics of their own" in record.error


class TestOneRank:
    @pytest.fixture(autouse=True)
    def group(self, tmp_path):
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()

    @pytest.mark.parametrize("name", [*SPECS])
    def test_computes_the_same_bits(self, name):
        record = Record.from_json(shared_tasks.run_share(SPECS[name], 0, 1))
        assert canonical(record.outcome) == canonical(run_trial(SPECS[name]).outcome)

    def test_another_number_of_ranks_does_not_go_on_from_a_checkpoint(self, tmp_path, caplog):
        checkpoints = Checkpoints(tmp_path / "checkpoints", every_seconds=0.0, largest_share=1e9)
        with shared_tasks.interrupted_after(5):
            run_trial(SPECS["sgdm"], checkpoints)
        shared_tasks.run_share(SPECS["sgdm"], 0, 1, checkpoints)
        assert "its made_by is" in caplog.text
        assert "starts anew" in caplog.text


def test_sums_are_added_by_name_and_not_by_place(monkeypatch):
    """Ranks are processes, and what order they have their names in may depend on a hash seed of their own."""
    sent = []
    monkeypatch.setattr("glideslope.trials.share.add_over_ranks", lambda tensor: sent.append(tensor.tolist()) or tensor)
    share = Share(FLOAT32, 0, 2, torch.device("cpu"))
    assert share.total({"loss": 1.0, "error": 2.0}) == {"loss": 1.0, "error": 2.0}
    assert share.total({"error": 2.0, "loss": 1.0}) == {"loss": 1.0, "error": 2.0}
    assert sent[0] == sent[1]


class TestRows:
    """Together the ranks have what one process would have; nobody reads the rows of another."""

    def parts(self, task, train, updates, count):
        seeds = make_spec().seeds
        shares = [Share(FLOAT32, rank, count, torch.device("cpu")) for rank in range(count)]
        return [list(batches(task, train, seeds, updates, arithmetic=share)) for share in shares]

    @pytest.mark.parametrize("count", [1, 2, 4, 9])
    def test_are_divided_with_the_draws_that_belong_to_them(self, count):
        task = shared_tasks.Odd()
        whole = list(batches(task, task.splits().train, make_spec().seeds, 20))
        for update, made in enumerate(zip(*self.parts(task, task.splits().train, 20, count), strict=True)):
            batch, noise = whole[update]
            assert max(len(part[0]) for part, _ in made) - min(len(part[0]) for part, _ in made) <= 1
            for index, tensor in enumerate(batch):
                assert torch.equal(torch.cat([part[index] for part, _ in made]), tensor)
            assert set(noise) == {"jitter", "shift"}
            for name, draw in noise.items():
                assert torch.equal(torch.cat([draws[name] for _, draws in made]), draw)

    def test_a_draw_for_the_batch_is_everybodys(self):
        task = tiny_tasks.Regression()
        draws = {"each": torch.arange(8), "scalar": torch.tensor(3.0), "three": torch.arange(3)}
        cut = of_rows(draws, Share(FLOAT32, 1, 2, torch.device("cpu")).rows(task.batch_size), task.batch_size)
        assert {name: draw.tolist() for name, draw in cut.items()} == {
            "each": [4, 5, 6, 7],
            "scalar": 3.0,
            "three": [0, 1, 2],
        }

    def test_are_the_only_ones_that_are_read(self):
        task = tiny_tasks.ReadOnDemand(data_seed=11)
        for rank, size in enumerate([2, 3, 3]):
            train = task.splits().train
            list(batches(task, train, make_spec().seeds, 5, arithmetic=Share(FLOAT32, rank, 3, torch.device("cpu"))))
            assert train[0].read == [size] * 5


def test_a_rank_evaluates_its_own_chunks_of_a_split_that_is_judged_whole(monkeypatch):
    task = shared_tasks.Ordered()
    sent, others = [], dict.fromkeys(["loss", "predicted", "target"], torch.zeros(7))

    def gather(chunks):
        sent.append(chunks)
        return [chunks, {chunk: others for chunk in range(5) if chunk not in chunks}]

    monkeypatch.setattr("glideslope.trials.share.gather_over_ranks", gather)
    monkeypatch.setattr("glideslope.trials.share.add_over_ranks", lambda tensor: tensor)
    for rank in range(2):
        share = Share(FLOAT32, rank, 2, torch.device("cpu"))
        evaluate(task, task.model(1), task.splits().test, make_spec().seeds, 1, share)
    assert [list(chunks) for chunks in sent] == [[0, 2, 4], [1, 3]]
    # What is a view of the split must not bring all of it along.
    storages = [value.untyped_storage() for chunks in sent for found in chunks.values() for value in found.values()]
    assert max(storage.nbytes() for storage in storages) <= 7 * 4


def test_ranks_leave_no_checkpoint_of_what_each_remembers_alone():
    def keeps(rank, count, model):
        return Share(FLOAT32, rank, count, torch.device("cpu")).keeps(model)

    plain, normalised, remembering = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2)
    remembering.register_buffer("seen", torch.zeros(2))
    constant = torch.nn.Linear(2, 2)
    constant.register_buffer("mean", torch.zeros(2), persistent=False)
    assert [keeps(0, 2, model) for model in (plain, normalised, constant, remembering)] == [True, True, True, False]
    assert keeps(0, 1, remembering)
    assert not keeps(1, 2, plain)


def test_ranks_that_run_out_of_memory_do_not_try_others():
    model = torch.nn.Linear(4, 1)
    batch = (torch.zeros(2, 4), torch.zeros(2))  # this rank's rows
    error = torch.OutOfMemoryError("CUDA out of memory")
    told = explained(error, tiny_tasks.Regression(), model, batch, {}, Share(FLOAT32, 0, 4, torch.device("cpu")))
    assert "a batch of 8 examples of regression does not fit into memory, shared by 4 processes" in str(told)


def test_a_batch_smaller_than_the_ranks_is_told():
    share = Share(shared_tasks.ARITHMETICS["float32"], 0, 3, torch.device("cpu"))
    record = run_trial(make_spec("shared_tasks:Pair"), None, share)
    assert record.status == "failed"
    assert "3 ranks cannot share a batch of 2. Run it with --ranks 2 or fewer." in record.error


def processes_of(folder):
    """Command lines of the processes that were told of a folder, by process id."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found[int(place.name)] = line
    return found


@pytest.fixture
def job_folder(tmp_path, monkeypatch):
    """Where jobs have their folders; none may be left, nor any process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert not processes_of(tmp_path)


def run_one(spec):
    with Torchrun(2) as executor:
        executor.submit(spec)
        back, record = executor.next()
        assert back == spec
        with pytest.raises(NothingLeft):
            executor.next()
    return record


class TestJobs:
    def test_a_job_computes_the_trial_with_settings_for_one_thread(self, job_folder):
        record = run_one(make_spec("tiny_tasks:Environment", updates=10, eval_every=4))
        assert record.status == "finished"
        assert record.path == {"executor": "torchrun", "device": "cpu", "K": 1, "ranks": 2}
        assert record.test.metric == 111  # one thread of PyTorch, and all settings
        alone = run_trial(make_spec(updates=10, eval_every=4))
        assert record.series.train_loss == pytest.approx(alone.series.train_loss, rel=1e-5)

    def test_what_one_rank_raises_is_the_trials_error(self, job_folder):
        record = run_one(make_spec("shared_tasks:RaisingLast"))
        assert (record.status, record.path["ranks"]) == ("failed", 2)
        assert record.error.startswith("Traceback")
        assert record.error.strip().endswith("RuntimeError: no loss in this rank")

    def test_a_rank_that_is_killed_is_told_by_its_signal(self, job_folder):
        record = run_one(make_spec("shared_tasks:KillingLast"))
        assert record.status == "failed"
        assert record.path == {"executor": "torchrun", "device": "cpu", "K": 1, "ranks": 2}
        assert "ended with exit code -9" in record.error.strip().splitlines()[-1]

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
    def test_ranks_end_with_a_driver_that_is_killed(self, tmp_path):
        program = (
            "from specs import make_spec; from glideslope.trials.executors import Torchrun\n"
            "executor = Torchrun(2); executor.submit(make_spec('tiny_tasks:Hours')); executor.next()"
        )
        environment = command_environment(TMPDIR=str(tmp_path))
        driver = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=SUPPORT)
        try:
            wait_until(lambda: sum("run" not in line for line in processes_of(tmp_path).values()) == 2)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        wait_until(lambda: not processes_of(tmp_path))


class TestCommandLine:
    def test_the_executor_by_name(self):
        assert isinstance(make_executor("torchrun", None, ranks=2), Torchrun)

    @pytest.mark.parametrize("name", ["population", "processes", "in-process"])
    def test_ranks_belong_to_torchrun(self, name):
        with pytest.raises(ValueError, match=f"--ranks belongs to --executor torchrun and ray, .*, not to {name}"):
            make_executor(name, None, ranks=2)

    @pytest.mark.parametrize(("workers", "ranks"), [(None, None), (2, 2)])
    def test_torchrun_wants_ranks_and_no_workers(self, workers, ranks):
        with pytest.raises(ValueError, match=r"say how many with --ranks 2 .*, and leave --workers out"):
            make_executor("torchrun", workers, ranks=ranks)

    def test_no_ranks(self):
        with pytest.raises(ValueError, match="`ranks` is 0, but must satisfy ranks >= 1"):
            Torchrun(0)

    def test_more_ranks_than_gpus(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        with pytest.raises(ValueError, match="`ranks` is 3, but must satisfy ranks <= 2, the number of GPUs"):
            Torchrun(3)
        assert isinstance(Torchrun(2), Torchrun)

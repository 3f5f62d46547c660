"""Device: what is asked for, what is there, and an arithmetic that puts everything where it belongs.

Without a GPU, PyTorch's "meta" device stands in for one: it has shapes and a place, and no numbers.
"""

import multiprocessing

import pytest
import torch
from specs import make_spec

from glideslope.cli.execution import make_executor
from glideslope.core.spec import canonical
from glideslope.trials import population
from glideslope.trials.arithmetic import ARITHMETICS, FLOAT32
from glideslope.trials.device import OnDevice, arithmetic_on, exact, find_device, resident_splits
from glideslope.trials.executors import InProcess, Populations, Processes
from glideslope.trials.executors.pool import Worker
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.population import population_key, run_population
from glideslope.trials.run import batches, run_trial
from glideslope.trials.trial import Seeds


class FakeProcess:
    exitcode = -9

    def join(self):
        pass


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


class TestFindDevice:
    def test_without_cuda(self, without_cuda):
        assert [find_device(name) for name in ("cpu", "auto")] == ["cpu", "cpu"]
        with pytest.raises(ValueError, match=r"PyTorch .* CUDA.*nvidia-smi.*--device cpu"):
            find_device("cuda")

    def test_with_cuda(self, with_cuda):
        assert [find_device(name) for name in ("cpu", "auto", "cuda")] == ["cpu", "cuda", "cuda"]

    def test_misspelt(self):
        with pytest.raises(ValueError, match=r"unknown device 'coda'\. Did you mean 'cuda'"):
            find_device("coda")


class TestOnDevice:
    def test_model_data_and_draws_are_moved(self):
        task, seen = find_task("tiny_tasks:Random"), []
        arithmetic = OnDevice(FLOAT32, "meta")
        model = arithmetic.place(task.model(1))
        for batch, noise in batches(task, arithmetic.splits(task).train, Seeds.all(1), 2):
            seen += [*batch, arithmetic.loss(task, model, batch, noise)]
            draws = {name: torch.zeros(len(batch[0])) for name in noise}
            seen += arithmetic.evaluate(task, model, task_splits(task).validation, draws).values()
        assert {tensor.device.type for tensor in (*seen, *model.parameters())} == {"meta"}
        assert len(seen) == 2 * (2 + 1 + 2)

    def test_data_are_moved_once(self):
        task = find_task("tiny_tasks:Random")
        assert resident_splits(task, "meta") is resident_splits(task, "meta")
        assert resident_splits(task, "cpu") is task_splits(task)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_it_changes_nothing_but_the_place(self, precision):
        spec = make_spec("tiny_tasks:Random", precision=precision, updates=20)
        moved = run_trial(spec, None, OnDevice(ARITHMETICS[precision], "cpu"))
        assert canonical(moved.outcome) == canonical(run_trial(spec).outcome)

    def test_the_record_says_where(self):
        assert arithmetic_on("cuda", "bfloat16").facts == {"precision": "bfloat16", "device": "cuda"}
        assert arithmetic_on("cpu", "float32") is FLOAT32

    def test_layouts_survive_the_move(self):
        task = find_task("checkpoint_tasks:Pictures")
        weight = arithmetic_on("meta", "bfloat16").place(task.model(1))[0].weight
        assert weight.device.type == "meta"
        assert weight.is_contiguous(memory_format=torch.channels_last)


class TestExact:
    def test_no_reduced_precision_and_no_choice_by_the_clock(self):
        switches = torch.backends.cudnn
        before = switches.allow_tf32, switches.deterministic
        with exact():
            assert (switches.allow_tf32, switches.deterministic, switches.benchmark) == (False, True, False)
            assert not torch.backends.cuda.matmul.allow_tf32
        assert (switches.allow_tf32, switches.deterministic) == before

    def test_trials_run_that_way(self, monkeypatch):
        task, seen = find_task("tiny_tasks:Regression"), []
        measured = type(task).measured
        monkeypatch.setattr(
            type(task),
            "measured",
            lambda self, errors: seen.append(torch.backends.cudnn.deterministic) or measured(self, errors),
        )
        run_trial(make_spec())
        assert seen
        assert all(seen)


class TestExecutors:
    def test_one_worker_per_gpu(self, with_cuda):
        for kind in (Populations, Processes):
            assert kind(device="cuda")._count == 3
            assert kind(2, "cuda")._count == 2

    def test_the_lowest_free_number_is_a_workers_own(self):
        executor = Populations(4)
        assert executor._free_slot() == 0
        executor._workers = [Worker(None, None, [], slot) for slot in (3, 0, 2)]
        assert executor._free_slot() == 1

    def test_a_device_that_is_not_there_is_told_before_any_trial(self, without_cuda):
        for name in ("population", "processes", "in-process"):
            with pytest.raises(ValueError, match="--device cpu"):
                make_executor(name, None, device="cuda")
            make_executor(name, None, device="auto").close()

    @pytest.mark.parametrize(("name", "more"), [("ray", {}), ("torchrun", {"ranks": 2})])
    def test_executors_that_find_their_own(self, name, more):
        with pytest.raises(ValueError, match=r"leave .*out"):
            make_executor(name, None, device="cuda", **more)

    def test_in_process(self, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "glideslope.trials.executors.in_process.run_trial",
            lambda spec, checkpoints, arithmetic: seen.append(arithmetic.facts.get("device")) or "record",
        )
        for device in ("cpu", "cuda"):
            executor = InProcess(device)
            executor.submit(make_spec())
            assert executor.next()[1] == "record"
        assert seen == [None, "cuda"]


def test_half_precision_runs_together_on_cuda_alone():
    spec = make_spec(precision="bfloat16")
    assert population_key(spec) is None
    assert population_key(spec, "cuda") not in (None, population_key(make_spec(), "cuda"))


def test_a_large_order_comes_back_in_parts_and_what_has_come_is_safe():
    executor, specs = Populations(1), [make_spec(seed=seed) for seed in range(3)]
    mine, theirs = multiprocessing.Pipe()
    worker = Worker(FakeProcess(), mine, list(specs), 0)
    executor._workers = [worker]
    records = run_population(specs)
    theirs.send_bytes(canonical([record.to_json() for record in records[:2]]).encode())
    executor._collect()
    assert [spec for spec, _ in executor._finished] == specs[:2]
    assert worker.specs == specs[2:]
    theirs.close()  # it dies at the third
    executor._collect()
    assert executor._take() == specs[2:]
    assert len(executor._finished) == 2


def test_parts_are_as_large_as_fits(monkeypatch):
    specs = [make_spec("dense_tasks:Dense", seed=seed) for seed in range(7)]
    monkeypatch.setattr(population, "members_that_fit", lambda task, way, device: 3)
    sizes = [[record.path["K"] for record in records] for records in population.populations(specs)]
    assert sizes == [[3] * 3, [2] * 2, [2] * 2]

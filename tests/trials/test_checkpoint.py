"""Checkpoints: a trial that goes on from one ends in the same bits; one that cannot be used is passed over."""

import json
import logging
import os
from dataclasses import replace

import pytest
import tiny_tasks
import torch
from interrupted import interrupted
from safetensors import safe_open
from safetensors.torch import save_file
from specs import make_spec
from under_fire import Chain, drive, fork_server, running, starts, stored

from glideslope.core.spec import canonical
from glideslope.trials import run as run_module
from glideslope.trials.checkpoint import Checkpoint, Checkpoints, Training, Unusable
from glideslope.trials.record import Record
from glideslope.trials.run import library_versions, run_trial
from glideslope.trials.store import Store

ALWAYS = {"every_seconds": 0.0, "largest_share": float("inf")}
"""A checkpoint after every update."""


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    # Thousands of checkpoints need not survive a power cut.
    monkeypatch.setattr("glideslope.trials.checkpoint._to_disk", lambda path: None)
    return Checkpoints(tmp_path / "checkpoints", **ALWAYS)


def progress(checkpoints, spec):
    return checkpoints.load(spec.trial_id, library_versions()).progress


def count_updates(monkeypatch):
    real, made = run_module.make_update, []

    def update(*arguments):
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(run_module, "make_update", update)
    return made


CASES = [
    ("dense_tasks:Dense", "rex", "sgdm"),
    ("dense_tasks:Dense", "cosine", "adam"),
    ("dense_tasks:Dense", "one_cycle", "adamw(weight_decay=0.1)"),
    ("dense_tasks:Dense", "linear", "amsgrad"),
    ("dense_tasks:Dense", "linear", "rmsprop(momentum=0.5, centered=true)"),
    ("dense_tasks:Dense", "rex + warmup(20%)", "sgdw"),
    ("dense_tasks:Dense", "linear", "sgdm(momentum=0)"),
    ("dense_tasks:Dense", "linear", "torch.optim:NAdam"),
    ("tiny_tasks:Regression", "linear", "torch.optim:LBFGS(history_size=3, max_iter=2)"),
    ("tiny_tasks:Random", "plateau(patience=0)", "sgdm"),
    ("checkpoint_tasks:Normalised", "linear", "adam"),
    ("checkpoint_tasks:GRU", "linear", "adam"),
    ("checkpoint_tasks:Drawing", "rex | plateau(patience=0)", "sgdm"),
]


class TestExactness:
    @pytest.mark.parametrize(("task", "schedule", "optimizer"), CASES)
    @pytest.mark.parametrize("stops", [(1,), (13, 4, 8)], ids=str)
    def test_a_trial_that_goes_on_ends_in_the_same_bits(
        self, task, schedule, optimizer, stops, checkpoints, monkeypatch
    ):
        spec = make_spec(
            task, schedule, optimizer=optimizer, updates=40, eval_every=6, rate=0.1,
            probes=("gradient_norm", "weight_norm", "full_gradient_norm"),
        )  # fmt: skip
        whole = run_trial(spec)
        assert whole.status != "failed"
        for stop in stops:
            interrupted(spec, checkpoints, stop)
        assert progress(checkpoints, spec)["cost"][2] == sum(stops)
        made = count_updates(monkeypatch)
        resumed = run_trial(spec, checkpoints)
        assert len(made) == 40 - sum(stops)
        assert canonical(resumed.outcome) == canonical(whole.outcome)
        assert bool(whole.decisions) == (schedule == "plateau(patience=0)")

    def test_a_run_long_enough_to_be_thinned(self, checkpoints):
        spec = make_spec(updates=300, eval_every=100)
        interrupted(spec, checkpoints, 133)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(run_trial(spec).outcome)

    def test_a_trial_that_diverges_later(self, checkpoints):
        spec = make_spec("tiny_tasks:Regression", "constant", rate=10.0, updates=2000)
        whole = run_trial(spec)
        assert whole.status == "diverged"
        interrupted(spec, checkpoints, 10)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(whole.outcome)

    def test_seconds_are_those_of_all_lives(self, checkpoints):
        spec = make_spec("tiny_tasks:Slow", updates=6)
        interrupted(spec, checkpoints, 4)
        assert run_trial(spec, checkpoints).cost.training_seconds >= 6 * 0.02

    def test_weights_are_taken_and_not_only_said_to_be(self, checkpoints, monkeypatch):
        # The test of the tests above: a restore that forgets the optimizer would be seen.
        spec = make_spec(updates=20)
        interrupted(spec, checkpoints, 10)
        monkeypatch.setattr(Checkpoint, "restore", lambda self, training: None)
        assert canonical(run_trial(spec, checkpoints).outcome) != canonical(run_trial(spec).outcome)


class TestWhenOneIsDue:
    @pytest.mark.parametrize(("wrote", "pause"), [(0.0, 60.0), (2.0, 60.0), (4.0, 80.0)])
    def test_after_a_minute_or_when_writing_is_slow_after_twenty_times_its_time(self, wrote, pause, tmp_path):
        assert Checkpoints(tmp_path).pause(wrote) == pause

    def test_short_trials_leave_none(self, tmp_path):
        run_trial(make_spec(updates=50), Checkpoints(tmp_path / "checkpoints"))
        assert not (tmp_path / "checkpoints").exists()

    def test_the_clock_decides(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(Checkpoints, "save", lambda self, *arguments: kept.append(arguments[2]["cost"][2]))
        clock = tiny_tasks.Clock(monkeypatch)
        run_trial(make_spec("tiny_tasks:Slow", updates=12, eval_every=12), Checkpoints(tmp_path, every_seconds=0.07))
        assert kept == [4, 8]
        assert clock.now == pytest.approx(12 * 0.02)

    def test_none_after_the_last_update(self, checkpoints):
        spec = make_spec(updates=5)
        run_trial(spec, checkpoints)
        assert progress(checkpoints, spec)["cost"][2] == 4

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"every_seconds": -1.0}, "every_seconds >= 0"), ({"largest_share": 0.0}, "largest_share > 0")],
    )
    def test_settings_out_of_bounds(self, settings, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            Checkpoints(tmp_path, **settings)


def rewrite(path, change):
    """Change labels or tensors of a checkpoint's file."""
    with safe_open(path, "pt") as file:
        labels = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(labels, tensors)
    save_file(tensors, path, labels)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    """One bit of the last weight."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def relabel(name, value):
    return lambda path: rewrite(path, lambda labels, tensors: labels.update({name: value}))


def another_loss(path):
    def change(labels, tensors):
        content = json.loads(labels["content"])
        content["progress"]["series"]["train_loss"][0] += 1e-9
        labels["content"] = canonical(content)

    rewrite(path, change)


DAMAGES = {
    "truncated": (truncate, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("no checkpoint " * 40), "cannot be read"),
    "a bit": (flip, "its sum does not match"),
    "a number in the header": (another_loss, "its sum does not match"),
    "another format": (relabel("format", "0"), "its format is 0, not 1"),
    "another trial": (relabel("trial_id", "f" * 24), "its trial_id is f"),
    "other libraries": (relabel("made_by", '{"torch":"1.0"}'), "its made_by is"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
}


class TestUnusable:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_checkpoint_that_cannot_be_used_is_passed_over_with_a_line(self, damage, checkpoints, caplog):
        spec = make_spec(updates=20, eval_every=7)
        interrupted(spec, checkpoints, 10)
        apply, message = DAMAGES[damage]
        apply(checkpoints.path(spec.trial_id))
        with caplog.at_level(logging.WARNING):
            record = run_trial(spec, checkpoints)
        assert canonical(record.outcome) == canonical(run_trial(spec).outcome)
        assert message in caplog.text
        assert "starts anew" in caplog.text

    def test_another_model(self, checkpoints, caplog, monkeypatch):
        spec = make_spec(updates=20)
        interrupted(spec, checkpoints, 10)
        monkeypatch.setattr(tiny_tasks.Regression, "model", lambda self, seed: torch.nn.Linear(4, 1, bias=False))
        assert run_trial(spec, checkpoints).status == "finished"
        assert "its weights are not those of the model" in caplog.text

    def test_a_state_that_does_not_fit(self, checkpoints, caplog, monkeypatch):
        spec = make_spec(updates=20)
        interrupted(spec, checkpoints, 10)
        real = Checkpoints.load

        def load(self, *arguments):
            found = real(self, *arguments)
            return replace(found, state={**found.state, "scheduler": {"version": 0}})

        monkeypatch.setattr(Checkpoints, "load", load)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(run_trial(spec).outcome)
        assert "its state does not fit: this state has version 0" in caplog.text

    def test_an_optimizer_that_does_not_take_its_state_back_exactly(self, checkpoints, caplog):
        spec = make_spec("dense_tasks:Dense", optimizer="checkpoint_tasks:Precise", updates=20)
        interrupted(spec, checkpoints, 10)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(run_trial(spec).outcome)
        assert "Precise does not take its own state back exactly" in caplog.text

    @pytest.mark.parametrize(
        ("task", "optimizer", "message"),
        [
            ("tiny_tasks:Regression", "checkpoint_tasks:Tangled", "the state holds a object"),
            ("checkpoint_tasks:Extra", "sgdm", "Secretive keeps state outside of parameters and buffers"),
        ],
    )
    def test_state_that_has_no_place_in_a_file(self, task, optimizer, message, checkpoints, caplog):
        spec = make_spec(task, optimizer=optimizer, updates=20)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(run_trial(spec).outcome)
        assert message in caplog.text
        assert caplog.text.count("goes without checkpoints") == 1
        assert not checkpoints.trial_ids()

    def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(self, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        spec = make_spec(updates=20)
        assert run_trial(spec, Checkpoints(tmp_path / "file", **ALWAYS)).status == "finished"
        assert caplog.text.count("goes without checkpoints") == 1

    def test_none_there(self, checkpoints):
        with pytest.raises(Unusable, match="cannot be read"):
            checkpoints.load("0" * 24, library_versions())


class TestFile:
    def test_it_is_replaced_at_once_or_not_at_all(self, checkpoints, monkeypatch):
        spec = make_spec(updates=20)
        interrupted(spec, checkpoints, 5)
        before = checkpoints.path(spec.trial_id).read_bytes()

        def full(*arguments):
            raise OSError("no space left")

        monkeypatch.setattr("glideslope.trials.checkpoint.os.replace", full)
        interrupted(spec, checkpoints, 5)
        assert checkpoints.path(spec.trial_id).read_bytes() == before
        assert [path.name for path in checkpoints.folder.iterdir()] == [f"{spec.trial_id}.safetensors"]

    def test_it_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        done = []
        real_sync, real_replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), real_sync(file)))
        monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), real_replace(*paths)))
        interrupted(make_spec(updates=20), Checkpoints(tmp_path, **ALWAYS), 1)
        assert done == ["fsync", "replace", "fsync"]

    def test_what_a_killed_writer_left_goes_too(self, checkpoints):
        interrupted(make_spec(updates=20), checkpoints, 1)
        spec = make_spec(updates=20)
        (checkpoints.folder / f"{spec.trial_id}.99.partial").touch()
        other = checkpoints.folder / f"{'0' * 24}.safetensors"
        other.touch()
        checkpoints.remove(spec.trial_id)
        assert list(checkpoints.folder.iterdir()) == [other]

    def test_layouts_of_memory_come_back(self, checkpoints):
        weight = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
        model = torch.nn.ParameterList([weight])
        optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        scheduler = run_module.BudgetScheduler(optimizer, "linear", "9ba")
        training = Training(model, optimizer, scheduler)
        checkpoints.save("a", training, {}, {})
        found = checkpoints.load("a", {})
        momentum = found.state["optimizer"]["state"][0]["momentum_buffer"]
        assert momentum.stride() == weight.stride() != momentum.contiguous().stride()
        found.restore(training)

    def test_numbers_that_json_does_not_know(self, checkpoints):
        spec = make_spec(updates=9)
        interrupted(spec, checkpoints, 4)
        found = checkpoints.load(spec.trial_id, library_versions())
        record = Record.from_json(found.progress)
        assert record.cost.updates == 4
        assert record.trial_id == spec.trial_id


class TestInStudies:
    @pytest.mark.parametrize("kind", ["processes", "population"])
    def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(self, kind, tmp_path, monkeypatch):
        """The second worker computes the rest only, and the file is gone when the record is stored."""
        server = fork_server()
        names = {"TINY_MARKER": "marker", "TINY_COUNTER": "updates", "TINY_CHECKPOINTS": "checkpoints"}
        environment = {variable: str(tmp_path / name) for variable, name in names.items()}
        spec = make_spec("checkpoint_tasks:Dying", updates=1000, eval_every=500)
        arguments = ([Chain((spec,))], tmp_path, kind, tmp_path / "log", 0.0, environment)
        with running(server.Process(target=drive, args=arguments)) as process:
            process.join()
        killed_at = int((tmp_path / "marker").read_text())
        assert starts(tmp_path / "log") == {spec.trial_id: 2}
        assert stored(tmp_path) == {spec.trial_id: ("finished", canonical(run_trial(spec).outcome))}
        assert not list((tmp_path / "checkpoints").iterdir())
        # At least 100 are not computed again; a population's worker computes some before, to see if it pays.
        assert (tmp_path / "updates").stat().st_size - killed_at <= 900 + (kind == "population") * 50

    def test_what_a_killed_driver_left_of_a_stored_trial_goes_when_the_store_is_opened(self, tmp_path):
        done, begun = make_spec(seed=1), make_spec(seed=2)
        with Store(tmp_path) as store:
            store.put(done, run_trial(done))
            for spec in (done, begun):
                interrupted(spec, store.checkpoints(**ALWAYS), 5)
        with Store(tmp_path) as store:
            assert store.checkpoints().trial_ids() == [begun.trial_id]

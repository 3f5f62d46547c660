"""The Trainer of transformers: rates in force and logged, ends, resumes, tokens, controllers. Real Trainers."""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import sys

import pytest
import torch
import trainer_ranks

pytest.importorskip("transformers")

from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from glideslope import Clock, Epochs, Plateau, Rex, Steps, WallClock
from glideslope.integrations.transformers import GlideslopeCallback
from glideslope.torch import BudgetExhausted, BudgetMismatch

BASE = 0.125
REX = Rex()


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Each `train()` collects garbage: 0.5 s among the objects of all these libraries, three quarters of this file.
    Threads would only wait for each other: the models have ten weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


class Time:
    """A clock that moves only when a model works: 1 s a batch of training, 10 s a batch of evaluation, 3 s a save."""

    def __init__(self, now=500.0):
        self.now = now
        self.clock = Clock(monotonic=lambda: self.now, wall=lambda: 1_800_000_000.0 + self.now)


class Net(torch.nn.Module):
    """A linear layer between dropout and normalisation: random numbers, and groups with and without weight decay."""

    def __init__(self, time=None):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 2)
        self.norm = torch.nn.LayerNorm(2)
        self.time = time

    def forward(self, inputs, labels):
        if self.time is not None:
            self.time.now += 1.0 if self.training else 10.0
        outputs = self.norm(self.linear(torch.nn.functional.dropout(inputs, 0.2, self.training)))
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}

    def state_dict(self, *args, **kwargs):
        if self.time is not None:
            self.time.now += 3.0
        return super().state_dict(*args, **kwargs)


class Examples(Dataset):
    def __init__(self, count):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(count, 3, generator=generator)
        self.labels = torch.randn(count, 2, generator=generator)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


class Stream(IterableDataset):
    def __iter__(self):
        examples = Examples(10)
        return (examples[index] for index in range(10))


class Watch(TrainerCallback):
    """What the optimizer really works with, update by update, and when the Trainer evaluates."""

    def __init__(self):
        self.rates, self.groups, self.evaluated = [], [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.groups.append([dict(group, params=None) for group in optimizer.param_groups])
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated.append(state.global_step)


def trainer(folder, callback, *, model=None, examples=12, **arguments):
    """A Trainer of 12 examples in batches of 2: 6 updates an epoch, unless told otherwise."""
    defaults = {
        "output_dir": str(folder),
        "learning_rate": BASE,
        "weight_decay": 0.01,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 7,
    }
    data = Examples(examples) if isinstance(examples, int) else examples
    made = Trainer(
        model=model if model is not None else Net(),
        args=TrainingArguments(**defaults | arguments),
        train_dataset=data,
        eval_dataset=Examples(4),
        callbacks=[callback],
    )
    made.watch = Watch()
    made.add_callback(made.watch)
    return made


def logged(made, name="learning_rate"):
    return [entry[name] for entry in made.state.log_history if name in entry]


def expected(updates, schedule=REX):
    return [BASE * schedule(k / updates) for k in range(updates)]


def weights(made):
    return torch.cat([parameter.detach().flatten() for parameter in made.model.parameters()])


def complaints(caplog):
    return [record.message for record in caplog.records if record.name.startswith("glideslope")]


# ---------------------------------------------------------------- rates


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_rates_in_force_and_rates_logged_are_those_of_the_schedule_whatever_the_trainer_schedules(
    tmp_path, kind, caplog
):
    callback = GlideslopeCallback(REX)
    made = trainer(tmp_path, callback, num_train_epochs=2, warmup_steps=5, lr_scheduler_type=kind)
    made.train()
    assert made.watch.rates == pytest.approx(expected(12), rel=1e-15)
    assert logged(made) == made.watch.rates
    assert callback.scheduler.budget == Steps(12)
    assert callback.scheduler.exhausted
    assert callback.scheduler.get_last_lr() == [0.0, 0.0]
    assert complaints(caplog) == []


def test_texts_with_warmup_as_in_the_one_line_of_the_readme(tmp_path):
    made = trainer(tmp_path, GlideslopeCallback("rex + warmup(50%)", budget="6ba"), num_train_epochs=99)
    made.train()
    assert made.watch.rates[3] == BASE
    assert made.watch.rates[0] == pytest.approx(BASE / 10)
    assert made.state.global_step == 6


def test_each_parameter_group_follows_its_own_schedule(tmp_path):
    made = trainer(tmp_path, GlideslopeCallback(["linear", "constant"]), max_steps=4)
    made.train()
    assert [[group["lr"] for group in groups] for groups in made.watch.groups] == [
        [BASE * (1 - k / 4), BASE] for k in range(4)
    ]
    assert {group["weight_decay"] for group in made.watch.groups[0]} == {0.01, 0.0}


def test_momentum_of_a_plan_is_the_first_beta_of_adam(tmp_path):
    made = trainer(tmp_path, GlideslopeCallback("one_cycle"), max_steps=4)
    made.train()
    betas = [groups[0]["betas"] for groups in made.watch.groups]
    assert [first for first, _ in betas] == pytest.approx([0.95, 0.9, 0.85, 0.9])
    assert {second for _, second in betas} == {0.999}
    assert made.watch.rates == pytest.approx([BASE * share for share in (0.1, 0.55, 1.0, 0.55)])


def test_every_training_begins_anew(tmp_path):
    callback = GlideslopeCallback(REX)
    made = trainer(tmp_path, callback, max_steps=5)
    made.train()
    first = callback.scheduler
    made.train()  # with the same optimizer
    assert callback.scheduler is not first
    assert made.watch.rates == pytest.approx(expected(5) * 2, rel=1e-15)


def test_a_new_optimizer_of_a_new_training_is_taken_up(tmp_path):
    callback = GlideslopeCallback(REX)
    made = trainer(tmp_path, callback, max_steps=3)
    made.train()
    made.model_init = Net  # what a hyperparameter search does
    made.args.learning_rate = 2 * BASE
    made.train()
    assert made.watch.rates[3:] == pytest.approx([2 * rate for rate in expected(3)], rel=1e-15)


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("seconds", [10, 8])
def test_a_time_ends_the_run_after_the_update_that_spends_it_with_last_evaluation_and_checkpoint(tmp_path, seconds):
    time = Time()
    callback = GlideslopeCallback("linear", WallClock(seconds), count_evaluation=False, clock=time.clock)
    steps = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, **steps)
    made.train()
    assert made.state.global_step == seconds
    assert made.watch.rates == pytest.approx(expected(seconds, lambda s: 1 - s))
    assert made.watch.evaluated == sorted({4, 8, seconds})
    assert sorted(int(path.name[11:]) for path in tmp_path.iterdir()) == sorted({4, 8, seconds})


def test_evaluation_and_checkpoint_of_every_epoch_come_at_the_end_too(tmp_path):
    time = Time()
    callback = GlideslopeCallback("linear", "9sec", count_evaluation=False, clock=time.clock)
    each = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, **each)
    made.train()
    assert made.watch.evaluated == [6, 9]
    assert (tmp_path / "checkpoint-9").exists()


def test_evaluation_is_spent_and_the_next_update_knows(tmp_path):
    time = Time()
    callback = GlideslopeCallback("linear", "32sec", clock=time.clock)
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, eval_strategy="steps", eval_steps=8)
    made.train()  # an evaluation takes 20 s
    spent = [*range(8), *range(28, 32)]
    assert made.watch.rates == logged(made) == pytest.approx([BASE * (1 - seconds / 32) for seconds in spent])


def test_an_evaluation_that_spends_the_budget_is_the_last(tmp_path):
    time = Time()
    callback = GlideslopeCallback("linear", "20sec", clock=time.clock)
    by_steps = {"eval_strategy": "steps", "eval_steps": 7, "save_strategy": "steps", "save_steps": 4}
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, **by_steps)
    made.train()
    assert made.state.global_step == 7
    assert made.watch.evaluated == [7]
    assert (tmp_path / "checkpoint-7").exists()
    assert callback.scheduler.get_last_lr() == [0.0, 0.0]


def test_evaluation_is_free_if_that_is_asked_for(tmp_path):
    time = Time()
    callback = GlideslopeCallback("linear", "30sec", count_evaluation=False, clock=time.clock)
    by_steps = {"eval_strategy": "steps", "eval_steps": 7, "save_strategy": "steps", "save_steps": 7}
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, eval_on_start=True, **by_steps)
    made.train()
    assert made.watch.evaluated == [0, 7, 14, 21, 28, 30]
    assert made.watch.rates == pytest.approx(expected(30, lambda s: 1 - s))


@pytest.mark.parametrize(("strategy", "seconds"), [("steps", 3), ("epoch", 23)])
@pytest.mark.parametrize("count_evaluation", [True, False])
def test_a_checkpoint_takes_time_too(tmp_path, strategy, seconds, count_evaluation):
    time = Time()
    callback = GlideslopeCallback("linear", "100sec", count_evaluation=count_evaluation, clock=time.clock)
    evaluation = {"eval_strategy": "epoch"} if strategy == "epoch" else {}
    each = {"save_strategy": strategy, "save_steps": 5, "num_train_epochs": 2, **evaluation}
    made = trainer(tmp_path, callback, model=Net(time), **each)
    made.train()
    saved = 5 if strategy == "steps" else 6
    spent = [k + count_evaluation * seconds * (k >= saved) for k in range(10)]
    assert made.watch.rates[:10] == logged(made)[:10] == pytest.approx([BASE * (1 - s / 100) for s in spent])


def test_the_clock_runs_on_when_the_next_epoch_begins(tmp_path):
    time = Time()

    class SlowLoader(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            time.now += 5

    callback = GlideslopeCallback("linear", "100sec", count_evaluation=False, clock=time.clock)
    made = trainer(tmp_path, callback, model=Net(time), eval_strategy="epoch", num_train_epochs=2)
    made.add_callback(SlowLoader())
    made.train()
    assert callback.scheduler.progress == pytest.approx(0.22)


def test_a_deadline_does_not_wait_for_evaluation(tmp_path):
    time = Time()
    budget = f"until {_moment(1_800_000_000.0 + time.now + 30)}"
    callback = GlideslopeCallback("linear", budget, count_evaluation=False, clock=time.clock)
    made = trainer(tmp_path, callback, model=Net(time), num_train_epochs=99, eval_strategy="steps", eval_steps=7)
    made.train()
    assert made.state.global_step == 10


def _moment(seconds):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_after_training_the_clock_stands_still(tmp_path):
    time = Time()
    callback = GlideslopeCallback("linear", "100sec", clock=time.clock)
    trainer(tmp_path, callback, model=Net(time), max_steps=25).train()
    time.now += 1000
    assert callback.scheduler.progress == 0.25


def test_the_trainers_own_end_before_the_budgets_is_said(tmp_path, caplog):
    made = trainer(tmp_path, GlideslopeCallback("linear", "10ba"), max_steps=10)
    made.train()
    assert complaints(caplog) == []
    made.args.max_steps = 4
    made.train()
    before, after = complaints(caplog)
    assert "will end at update 4, before 10ba are spent" in before
    assert "ended after 4 updates at progress 0.4" in after
    assert "num_train_epochs=10**6" in after


# ---------------------------------------------------------------- epochs


@pytest.mark.parametrize("epochs", [2, 1.5])
def test_an_epoch_has_the_updates_that_the_trainer_makes_of_it(tmp_path, epochs):
    callback = GlideslopeCallback("linear", Epochs(epochs))
    # 7 batches in threes, the last accumulation has one: 3 updates
    made = trainer(tmp_path, callback, examples=14, gradient_accumulation_steps=3, num_train_epochs=9)
    made.train()
    updates = 3 * epochs
    assert callback.scheduler.budget == Epochs(epochs, updates_per_epoch=3)
    assert made.watch.rates == pytest.approx([BASE * (1 - k / updates) for k in range(math.ceil(updates))])


def test_epochs_of_a_stream_are_learned_from_the_first(tmp_path):
    callback = GlideslopeCallback("linear", "2ep")
    made = trainer(tmp_path, callback, examples=Stream(), max_steps=50)
    made.train()
    assert made.watch.rates == pytest.approx([BASE] * 5 + [BASE * (1 - k / 10) for k in range(5, 10)])
    assert logged(made) == made.watch.rates


@pytest.mark.parametrize("eval_steps", [3, 5])
def test_one_epoch_of_a_stream_ends_when_it_is_over(tmp_path, eval_steps):
    by_steps = {"eval_strategy": "steps", "eval_steps": eval_steps}
    made = trainer(tmp_path, GlideslopeCallback("linear", "1ep"), examples=Stream(), max_steps=50, **by_steps)
    made.train()
    assert made.state.global_step == 5
    assert made.watch.evaluated == sorted({eval_steps, 5})


# ---------------------------------------------------------------- resuming


def run(folder, callback, *, resume=None, **arguments):
    arguments = {"save_strategy": "steps", "save_steps": 5, "max_steps": 12, **arguments}
    made = trainer(folder, callback, **arguments)
    made.train(resume_from_checkpoint=resume and str(folder / resume))
    return made


@pytest.mark.parametrize("restored_by_the_trainer", [False, True])
@pytest.mark.parametrize("saved", ["checkpoint-5", "checkpoint-10"])
def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path, restored_by_the_trainer, saved):
    arguments = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "restore_callback_states_from_checkpoint": restored_by_the_trainer,
    }
    steered = {"controller": Plateau(patience=0, factor=0.5, threshold=0.5)}
    whole = run(tmp_path, GlideslopeCallback("rex + warmup(20%)", **steered), **arguments)
    resumed = run(tmp_path, GlideslopeCallback("rex + warmup(20%)", **steered), resume=saved, **arguments)
    assert resumed.watch.rates == whole.watch.rates[-len(resumed.watch.rates) :]
    assert logged(resumed) == logged(whole)
    assert torch.equal(weights(resumed), weights(whole))
    last = resumed.callback_handler.callbacks[-1 if restored_by_the_trainer else -3]
    assert last.scheduler.gain < 1


@pytest.mark.parametrize("restored_by_the_trainer", [False, True])
def test_time_spent_goes_on_counting_where_the_checkpoint_was_made(tmp_path, restored_by_the_trainer):
    flag = {"restore_callback_states_from_checkpoint": restored_by_the_trainer}
    time = Time()
    whole = run(tmp_path, GlideslopeCallback(REX, "1000sec", clock=time.clock), model=Net(time), **flag)
    later = Time(now=77.0)
    resumed = run(
        tmp_path,
        GlideslopeCallback(REX, "1000sec", clock=later.clock),
        model=Net(later),
        resume="checkpoint-5",
        **flag,
    )
    # Restored by the Trainer, it has the machine's clock, on which these updates take no time worth mentioning.
    tolerance = {"abs": BASE * 0.02} if restored_by_the_trainer else {"rel": 1e-15}
    assert resumed.watch.rates == pytest.approx(whole.watch.rates[5:], **tolerance)
    assert resumed.watch.rates[0] == pytest.approx(BASE * REX(0.008))  # the checkpoint took time, too


def test_another_budget_is_refused_with_the_way_out(tmp_path):
    run(tmp_path, GlideslopeCallback(REX))
    with pytest.raises(BudgetMismatch, match=r'Steps\(count=12\).*Steps\(count=20\)(.|\n)*rebudget="continuous"'):
        run(tmp_path, GlideslopeCallback(REX), resume="checkpoint-5", max_steps=20)


def test_another_budget_on_purpose(tmp_path):
    run(tmp_path, GlideslopeCallback("linear"))
    resumed = run(tmp_path, GlideslopeCallback("linear", rebudget="continuous"), resume="checkpoint-5", max_steps=20)
    assert resumed.watch.rates == pytest.approx([BASE * (7 / 12) * (1 - k / 15) for k in range(15)])
    rescaled = run(tmp_path, GlideslopeCallback("linear", rebudget="rescale"), resume="checkpoint-10", max_steps=20)
    # This checkpoint was made by the run above, so its budget is 20 already.
    assert rescaled.watch.rates == resumed.watch.rates[5:]
    once_more = run(tmp_path, GlideslopeCallback("linear", rebudget="rescale"), resume="checkpoint-15", max_steps=30)
    assert once_more.watch.rates == pytest.approx([BASE * (1 - k / 30) for k in range(15, 30)])


def test_a_spent_budget_cannot_be_continued(tmp_path):
    run(tmp_path, GlideslopeCallback("linear"), max_steps=5)
    with pytest.raises(BudgetExhausted, match="without `resume_from_checkpoint`"):
        run(tmp_path, GlideslopeCallback("linear", rebudget="continuous"), resume="checkpoint-5", max_steps=9)


def test_a_run_resumed_with_its_budget_spent_changes_nothing_and_ends(tmp_path):
    whole = run(tmp_path, GlideslopeCallback("linear", "5ba"))
    resumed = run(tmp_path, GlideslopeCallback("linear", "5ba"), resume="checkpoint-5")
    assert resumed.watch.rates == [0.0]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_that_knows_nothing_of_the_budget_is_refused(tmp_path):
    run(tmp_path, Watch())
    with pytest.raises(ValueError, match="step 5 was made without GlideslopeCallback"):
        run(tmp_path, GlideslopeCallback(REX), resume="checkpoint-5")


def test_what_a_checkpoint_carries_makes_the_callback_anew():
    made = GlideslopeCallback(
        ["rex(beta=0.9) @ plateaus(4)", "one_cycle"],
        "45min reserve 2min",
        Plateau(patience=3),
        rebudget="keep",
        count_evaluation=False,
    )
    again = GlideslopeCallback.from_state(json.loads(json.dumps(made.state())))
    assert again.state() == made.state()
    assert again.budget == made.budget
    assert [policy.plan for policy in again.policies] == [policy.plan for policy in made.policies]
    assert again.policies[0].controller == Plateau(patience=3)
    assert (again.rebudget, again.count_evaluation) == ("keep", False)


# ---------------------------------------------------------------- controller


@pytest.fixture
def observations(monkeypatch):
    seen = []
    decide = Plateau.decide

    def remember(self, observation, state):
        seen.append(observation)
        return decide(self, observation, state)

    monkeypatch.setattr(Plateau, "decide", remember)
    return seen


def test_the_controller_observes_evaluations_and_its_gain_is_in_force_and_logged(tmp_path, observations):
    callback = GlideslopeCallback("constant", controller=Plateau(patience=0, factor=0.5, threshold=0.9))
    made = trainer(tmp_path, callback, max_steps=9, eval_strategy="steps", eval_steps=3, eval_on_start=True)
    made.train()
    assert [seen.update for seen in observations] == [3, 6, 9]
    assert [seen.val_loss for seen in observations] == logged(made, "eval_loss")[1:]
    assert [loss for seen in observations for loss in seen.train_losses] == logged(made, "loss")
    assert logged(made) == [BASE] * 6 + [BASE / 2] * 3  # the first evaluation is the best so far
    assert logged(made) == made.watch.rates
    made.evaluate()
    assert len(observations) == 3  # what comes after training is not its business


def test_a_controller_that_has_seen_nothing_is_said(tmp_path, caplog):
    trainer(tmp_path, GlideslopeCallback("constant | plateau"), max_steps=2).train()
    (complaint,) = complaints(caplog)
    assert "plateau" in complaint
    assert "eval_strategy" in complaint


# ---------------------------------------------------------------- tokens


class Sentences(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"input_ids": torch.arange(5), "attention_mask": torch.tensor([1, 1, 1, 0, 0]), "labels": index % 2}


class Reader(torch.nn.Module):
    """A model of sentences, by the names that transformers gives their parts."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 2)

    def forward(self, input_ids, attention_mask, labels):
        logits = (self.embedding(input_ids) * attention_mask[..., None]).mean(1)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(("counted", "tokens_an_update"), [("all", 20), ("non_padding", 12)])
def test_tokens_as_the_trainer_counts_them(tmp_path, counted, tokens_an_update):
    callback = GlideslopeCallback("linear", f"{9 * tokens_an_update}tok")
    arguments = {"gradient_accumulation_steps": 2, "include_num_input_tokens_seen": counted, "num_train_epochs": 99}
    checkpoints = {"save_strategy": "steps", "save_steps": 4}
    made = trainer(tmp_path, callback, model=Reader(), examples=Sentences(), **arguments, **checkpoints)
    made.train()
    assert made.watch.rates == pytest.approx(expected(9, lambda s: 1 - s))
    resumed = trainer(
        tmp_path,
        GlideslopeCallback("linear", f"{9 * tokens_an_update}tok"),
        model=Reader(),
        examples=Sentences(),
        **arguments,
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.watch.rates == made.watch.rates[4:]


def test_what_the_trainer_does_not_count_is_refused(tmp_path):
    with pytest.raises(ValueError, match='include_num_input_tokens_seen="non_padding"'):
        trainer(tmp_path, GlideslopeCallback("linear", "100tok"), max_steps=2).train()
    with pytest.raises(ValueError, match="main_input_name"):
        trainer(
            tmp_path, GlideslopeCallback("linear", "100tok"), max_steps=2, include_num_input_tokens_seen="all"
        ).train()
    with pytest.raises(ValueError, match="at 6 samples an update it is '17ba'"):
        trainer(tmp_path, GlideslopeCallback("linear", "100sp"), max_steps=2, gradient_accumulation_steps=3).train()


# ---------------------------------------------------------------- ranks


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_ranks_end_at_the_same_update_under_skewed_clocks_and_count_tokens_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=trainer_ranks.work, args=(rank, str(tmp_path))) for rank in range(trainer_ranks.RANKS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * trainer_ranks.RANKS
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(trainer_ranks.RANKS))
    assert first == second
    time, tokens = first
    assert time["world_size"] == trainer_ranks.RANKS
    assert time["updates"] == 10  # two batches of 1 s each by rank 0's clock
    assert time["rates"] == pytest.approx([1 - k / 10 for k in range(10)])
    # Two ranks, two batches of two sentences of five tokens: 40 tokens an update.
    assert tokens["tokens"] == [320, 320]
    assert tokens["rates"] == pytest.approx([1 - k / 8 for k in range(8)])


# ---------------------------------------------------------------- errors


def test_there_is_no_scheduler_before_training():
    with pytest.raises(RuntimeError, match=r"made when training begins(.|\n)*trainer\.train\(\)"):
        _ = GlideslopeCallback(REX).scheduler


def test_mistakes_are_found_at_construction():
    with pytest.raises(ValueError, match="Did you mean 'rex'"):
        GlideslopeCallback("rexx")
    with pytest.raises(ValueError, match="cannot read the budget"):
        GlideslopeCallback(REX, "45 minutes or so")
    with pytest.raises(ValueError, match="Did you mean 'rescale'"):
        GlideslopeCallback(REX, rebudget="rescaled")


def test_two_of_them_are_refused(tmp_path):
    made = trainer(tmp_path, GlideslopeCallback(REX), max_steps=1)
    made.add_callback(GlideslopeCallback("linear"))
    with pytest.raises(ValueError, match="several GlideslopeCallbacks"):
        made.train()
    with pytest.raises(ValueError, match="several GlideslopeCallbacks"):
        Trainer(model=Net(), args=made.args, callbacks=[GlideslopeCallback(REX), GlideslopeCallback("linear")])


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
def test_schedulers_that_the_trainer_steps_after_evaluations_are_refused(tmp_path, kind):
    arguments = {"lr_scheduler_type": kind, "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
    with pytest.raises(ValueError, match="controller=Plateau"):
        trainer(tmp_path, GlideslopeCallback(REX), max_steps=1, **arguments).train()

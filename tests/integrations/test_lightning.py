"""Lightning: update k of N runs at the rate of k/N, and the run ends with its budget. Against the real Trainer."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, IterableDataset

from glideslope import Controller, Decision, Epochs, Plateau, Steps, WallClock, parse_budget, parse_plan
from glideslope.integrations.lightning import BudgetCallback, lightning_config
from glideslope.torch import BudgetMismatch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

BASE = 0.1


class Clock:
    """Stands still unless told."""

    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now


class Module(LightningModule):
    """A regression whose data depend on the number of the update alone, whatever loader it is given."""

    def __init__(self, schedule="linear", clock=None, seconds=0.0, validation_seconds=0.0, **config):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(3, 1)
        self.clock = clock if clock is not None else Clock()
        self.seconds, self.validation_seconds = seconds, validation_seconds
        self.schedule, self.config = schedule, config
        self.rates, self.losses = [], []

    @property
    def scheduler(self):
        return self.lr_schedulers()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=BASE)
        return lightning_config(optimizer, self.schedule, self.trainer, clock=self.clock, **self.config)

    def loss(self):
        data = torch.randn(4, 3, generator=torch.Generator().manual_seed(self.global_step))
        return (self.net(data) - data.sum(1, keepdim=True)).square().mean()

    def training_step(self, batch, batch_idx):
        self.clock.now += self.seconds
        loss = self.loss()
        self.losses.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


class Validated(Module):
    def validation_step(self, batch, batch_idx):
        self.clock.now += self.validation_seconds
        self.log("val_loss", 1.0)


class Stop(Callback):
    """Breaks a run off."""

    def __init__(self, update):
        self.update = update

    def on_train_batch_end(self, run, *_):
        run.should_stop = run.global_step == self.update


class Stream(IterableDataset):
    """Batches whose number nobody knows beforehand."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(range(self.batches))


def batches(count):
    return DataLoader(torch.zeros(count), batch_size=1)


def trainer(**options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**({"accelerator": "cpu", "max_epochs": -1, "num_sanity_val_steps": 0} | quiet | options))


def line(updates, base=BASE):
    return [base * (1 - update / updates) for update in range(updates)]


def lands(module, run, updates):
    """The whole law: so many updates, each at its rate, and then the end of the line."""
    assert run.global_step == updates
    assert module.rates == pytest.approx(line(updates), rel=1e-12)
    assert module.scheduler.exhausted
    assert module.scheduler.get_last_lr() == [0.0]


# ------------------------------------------------------------ the trainer's own length


@pytest.mark.parametrize(
    ("options", "updates"),
    [
        ({"max_epochs": 3}, 30),
        ({"max_steps": 14}, 14),
        ({"max_epochs": 3, "max_steps": 14}, 14),
        ({"max_epochs": 2, "limit_train_batches": 7}, 14),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 10),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 15),
        ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9),  # 4 + 4 + 2: the ragged rest is an update too
        ({"max_epochs": 2, "accumulate_grad_batches": 3, "limit_train_batches": 5}, 4),
    ],
)
def test_without_a_budget_the_rate_lands_where_the_trainer_ends(options, updates):
    module, run = Module(), trainer(**options)
    run.fit(module, batches(10))
    assert module.scheduler.budget == Steps(updates)
    lands(module, run, updates)


@pytest.mark.parametrize("where", ["max_time", "callback"])
def test_a_trainer_that_only_a_timer_ends_lends_its_time(where):
    day = {"max_time": "01:00:00:30"} if where == "max_time" else {"callbacks": [Timer({"days": 1, "seconds": 30})]}
    clock = Clock()
    module, run = Module(clock=clock, seconds=86430 / 8), trainer(**day)
    run.fit(module, batches(100))
    assert module.scheduler.budget == WallClock(86430)
    lands(module, run, 8)


def test_a_timer_that_has_elapsed_in_part_lends_the_same_time(tmp_path):
    run = trainer(max_time={"seconds": 17.3}, callbacks=[Stop(3)])
    run.fit(Module(), batches(4))
    run.save_checkpoint(tmp_path / "break.ckpt")
    module, again = Module(), trainer(max_time={"seconds": 17.3}, callbacks=[Stop(5)])
    again.fit(module, batches(4), ckpt_path=tmp_path / "break.ckpt", weights_only=True)
    assert module.scheduler.budget == WallClock(17.3)
    assert again.global_step == 5

    timer = Timer({"seconds": 17.3})
    timer.load_state_dict({"time_elapsed": {"train": (elapsed := 1.1381477646205038)}})
    assert elapsed + (17.3 - elapsed) != 17.3
    module = Module()
    trainer(callbacks=[timer, Stop(1)]).fit(module, batches(4))
    assert module.scheduler.budget == WallClock(17.3)


def test_a_second_fit_lands_where_the_trainer_goes_on_to(tmp_path):
    run = trainer(max_epochs=1, accumulate_grad_batches=2)
    run.fit(Module(), batches(5))
    run.save_checkpoint(tmp_path / "first.ckpt")
    run.fit_loop.max_epochs = 3
    module = Module()
    run.fit(module, batches(5))
    assert module.scheduler.budget == Steps(6)
    assert module.rates == pytest.approx(line(6))
    with pytest.raises(BudgetMismatch, match=r"made for Steps\(count=3\) and is being loaded into Steps\(count=9\)"):
        run.fit(Module(), batches(5), ckpt_path=tmp_path / "first.ckpt", weights_only=True)


def test_a_loader_of_unknown_length_teaches_how_long_an_epoch_is():
    module, run = Module(), trainer(max_epochs=3)
    run.fit(module, DataLoader(Stream(5), batch_size=1))
    assert module.scheduler.budget == Epochs(3, 5)
    # Nothing is known in the first epoch, so nothing is spent; then a third of the way is behind it.
    assert module.rates == pytest.approx([BASE] * 5 + line(15)[5:])
    assert run.global_step == 15
    assert module.scheduler.get_last_lr() == [0.0]


def test_a_trainer_without_an_end_is_told_what_to_give():
    with pytest.raises(ValueError, match=r'nowhere to land\. Give lightning_config a budget, such as budget="45min"'):
        trainer().fit(Module(), batches(10))


def test_what_lightning_counts_wrongly_is_refused():
    run = trainer(max_epochs=4, callbacks=[GradientAccumulationScheduler({0: 2, 2: 5})])
    with pytest.raises(ValueError, match=r"GradientAccumulationScheduler changes the number .* without a budget"):
        run.fit(Module(), batches(10))
    with pytest.raises(ValueError, match=r"the budget 4ep has no fixed number of updates\. Give .* \(\"500ba\"\)"):
        run.fit(Module(budget="4ep"), batches(10))
    module = Module(budget="14ba")
    run.fit(module, batches(10))
    lands(module, run, 14)


# ------------------------------------------------------------ a budget ends the run


@pytest.mark.parametrize(
    ("budget", "updates", "options"),
    [
        ("14ba", 14, {}),
        ("2ep", 20, {}),
        ("1.5ep", 15, {}),
        ("3ep", 15, {"accumulate_grad_batches": 2}),
        ("3ep", 9, {"accumulate_grad_batches": 4}),
        ("2ep", 8, {"limit_train_batches": 4}),
        ("2ep*9ba", 18, {}),  # what the user says goes
        ("14ba", 14, {"min_steps": 20}),
        ("14ba", 14, {"min_epochs": 4}),
    ],
)
def test_a_budget_ends_the_run_at_its_last_update(budget, updates, options):
    module, run = Module(budget=budget), trainer(**options)
    run.fit(module, batches(10))
    lands(module, run, updates)


def test_the_minimum_that_a_budget_overruled_holds_for_the_next_run():
    run = trainer(min_steps=20, min_epochs=3)
    run.fit(Module(budget="5ba"), batches(10))
    assert (run.global_step, run.min_steps, run.min_epochs) == (5, 20, 3)


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_of_unknown_length_end_the_run(epochs):
    module, run = Module(budget=Epochs(epochs)), trainer()
    run.fit(module, DataLoader(Stream(5), batch_size=1))
    assert (run.global_step, run.current_epoch) == (5 * epochs, epochs)
    assert module.scheduler.budget == Epochs(epochs, 5)


def test_an_epoch_that_was_broken_off_does_not_teach_its_length():
    module = Module(budget="2ep")
    trainer(callbacks=[Stop(3)]).fit(module, DataLoader(Stream(5), batch_size=1))
    assert module.scheduler.budget == Epochs(2)


@pytest.mark.parametrize("budget", ["20sec", "22sec reserve 2sec", "deadline"])
def test_a_budget_in_time_ends_the_run_within_one_update(budget):
    clock = Clock()
    if budget == "deadline":
        budget = parse_budget("until 2030-01-01T00:00:00+00:00")
        budget = replace(budget, at=clock.wall() + 20)
    module, run = Module(clock=clock, seconds=3.0, budget=budget), trainer()
    start = clock.now
    run.fit(module, batches(5))
    assert clock.now - start == 21  # the seventh update began in time
    assert module.rates == pytest.approx([BASE * (1 - 3 * update / 20) for update in range(7)])


@pytest.mark.parametrize(("count", "updates"), [(True, 4), (False, 10)])
def test_evaluation_is_spent_from_the_time_unless_it_is_not_to_count(count, updates):
    callback = BudgetCallback(count_evaluation=count)
    module = Validated(seconds=2.0, validation_seconds=6.0, budget="20sec")
    run = trainer(callbacks=[callback], val_check_interval=2, num_sanity_val_steps=1, max_steps=20)
    run.fit(module, batches(20), batches(1))
    # Counted: 6 s of sanity check, 4 s of updates, 6 s of validation, 4 s of updates.
    assert run.global_step == updates
    assert [type(found) for found in run.callbacks] == [BudgetCallback]


def test_tokens_are_handed_over_in_lightnings_own_hook():
    class Counting(Module):
        tokens = 0

        def training_step(self, batch, batch_idx):
            self.tokens += 10
            return super().training_step(batch, batch_idx)

        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step(tokens=self.tokens)
            self.tokens = 0

    module, run = Counting(budget="120tok"), trainer(accumulate_grad_batches=3)
    run.fit(module, batches(5))  # updates after 3 and 2 batches
    assert module.rates == pytest.approx([BASE * (1 - spent / 120) for spent in (0, 30, 50, 80, 100)])
    assert run.global_step == 5


def test_tokens_that_nobody_counts_are_asked_for():
    with pytest.raises(ValueError, match=r"counts tokens: call step\(tokens=…\)"):
        trainer().fit(Module(budget="120tok"), batches(5))


# ------------------------------------------------------------ Lightning's own machinery around it


def test_the_learning_rate_monitor_records_our_rate_at_every_step(tmp_path):
    monitor = LearningRateMonitor()
    run = trainer(max_epochs=2, callbacks=[monitor], logger=CSVLogger(tmp_path), log_every_n_steps=1)
    run.fit(Module("one_cycle"), batches(6))
    (_, course), _ = parse_plan("one_cycle").courses
    assert monitor.lrs == {"lr-AdamW": pytest.approx([course.at(course.schedule(k / 12), BASE) for k in range(12)])}


def test_it_is_not_mistaken_for_a_scheduler_that_reduces_on_a_plateau():
    class Monitoring(Validated):
        stepped = ()

        def configure_optimizers(self):
            return super().configure_optimizers() | {"monitor": "val_loss"}

        def lr_scheduler_step(self, scheduler, metric):
            self.stepped += (metric,)
            super().lr_scheduler_step(scheduler, metric)

    module, run = Monitoring(), trainer(max_epochs=2)
    run.fit(module, batches(3), batches(1))
    (config,) = run.lr_scheduler_configs
    assert (config.interval, config.frequency, config.reduce_on_plateau, config.monitor) == ("step", 1, False, None)
    assert module.stepped == (None,) * 6


def test_bf16_mixed_precision_and_clipping_change_nothing():
    module, run = Module(), trainer(max_epochs=2, precision="bf16-mixed", gradient_clip_val=0.5)
    run.fit(module, batches(5))
    lands(module, run, 10)


def test_two_optimizers_in_manual_optimization_land_both():
    class Adversaries(LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.nets = torch.nn.ModuleList(torch.nn.Linear(2, 1) for _ in range(2))
            self.rates = [], []

        def configure_optimizers(self):
            first, second = (torch.optim.SGD(net.parameters(), lr=BASE) for net in self.nets)
            return (
                lightning_config(first, "linear", self.trainer, "12ba"),
                lightning_config(second, "linear", self.trainer, "4ba"),
            )

        def training_step(self, batch, batch_idx):
            for index, (optimizer, scheduler) in enumerate(zip(self.optimizers(), self.lr_schedulers(), strict=True)):
                for _ in range(2 - index):
                    self.rates[index].append(optimizer.param_groups[0]["lr"])
                    optimizer.zero_grad()
                    self.manual_backward(self.nets[index](torch.ones(1, 2)).square().mean())
                    optimizer.step()
                    scheduler.step()

    module, run = Adversaries(), trainer()
    run.fit(module, batches(4))
    assert module.rates == (pytest.approx(line(12)), pytest.approx([*line(4), 0.0, 0.0]))
    assert [type(callback) for callback in run.callbacks] == [BudgetCallback]


class Manual(Module):
    def __init__(self, **config):
        super().__init__(**config)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()
        self.lr_schedulers().step()
        return loss


def test_manual_optimization_needs_a_budget_and_learns_epochs():
    with pytest.raises(ValueError, match="in manual optimization only your `training_step` knows how often it updates"):
        trainer(max_epochs=3).fit(Manual(), batches(4))
    module, run = Manual(budget="3ep"), trainer()
    run.fit(module, batches(4))
    assert (run.global_step, module.scheduler.budget) == (12, Epochs(3, 4))
    assert module.rates == pytest.approx([BASE] * 4 + line(12)[4:])


# ------------------------------------------------------------ the closed loop


class Seen(Controller):
    """Keeps what it is shown."""

    shown = []  # noqa: RUF012 - a value has no place to keep it

    def start(self):
        return {}

    def decide(self, observation, state):
        self.shown.append(observation)
        return Decision(observation.gain / 2), state


@pytest.fixture
def shown():
    Seen.shown.clear()
    return Seen.shown


def test_the_controller_sees_the_loss_of_every_update_and_the_metric_after_validation(shown):
    module = Validated(controller=Seen())
    run = trainer(max_epochs=2, accumulate_grad_batches=2, num_sanity_val_steps=2)
    run.fit(module, batches(5), batches(1))
    loss = module.losses
    means = [(loss[0] + loss[1]) / 2, (loss[2] + loss[3]) / 2, loss[4]]
    means += [(loss[5] + loss[6]) / 2, (loss[7] + loss[8]) / 2, loss[9]]
    assert [seen.update for seen in shown] == [3, 6]
    assert [seen.val_loss for seen in shown] == [1.0, 1.0]
    assert shown[0].train_losses + shown[1].train_losses == pytest.approx(means)
    assert len(shown[0].train_losses) == 3
    assert module.rates == pytest.approx([rate * (1 if k < 3 else 0.5) for k, rate in enumerate(line(6))])


def test_without_validation_the_controller_observes_every_epoch(shown):
    trainer(max_epochs=3).fit(Module(controller=Seen()), batches(4))
    assert [(seen.update, seen.val_loss, len(seen.train_losses)) for seen in shown] == [
        (4, None, 4),
        (8, None, 4),
        (12, None, 4),
    ]


def test_in_manual_optimization_the_loss_that_is_returned_is_seen(shown):
    module = Manual(budget="8ba", controller=Seen())
    trainer().fit(module, batches(4))
    assert [loss for seen in shown for loss in seen.train_losses] == pytest.approx(module.losses)


def test_validation_outside_of_a_fit_is_no_observation(shown):
    module, run = Validated(controller=Seen()), trainer(max_epochs=1)
    run.fit(module, batches(2), batches(1))
    run.validate(module, batches(1), verbose=False)
    assert len(shown) == 1


def test_another_metric_can_be_observed(shown):
    class Other(Module):
        def validation_step(self, batch, batch_idx):
            self.log("error", 0.25)

    run = trainer(max_epochs=1, callbacks=[BudgetCallback(monitor="error")])
    run.fit(Other(controller=Seen()), batches(2), batches(1))
    assert [seen.val_loss for seen in shown] == [0.25]
    message = r"the controller observes 'val_loss', but validation logged error\. .*BudgetCallback\(monitor=…\)"
    with pytest.raises(ValueError, match=message):
        trainer(max_epochs=1).fit(Other(controller=Seen()), batches(2), batches(1))
    trainer(max_epochs=1).fit(Other(), batches(2), batches(1))  # without a controller nobody asks for it


# ------------------------------------------------------------ resume


def checkpoints(folder):
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


def end_of(module):
    weights = [value.hex() for parameter in module.parameters() for value in parameter.flatten().tolist()]
    state = module.scheduler.state_dict()
    return weights, state


STEERED = {"schedule": "one_cycle", "controller": Plateau(patience=0, factor=0.5)}


@pytest.mark.parametrize(
    ("config", "options"),
    [({}, {"max_epochs": 3}), ({}, {"max_steps": 11}), ({"budget": "11ba"}, {}), (STEERED, {"max_epochs": 3})],
    ids=["epochs", "steps", "budget", "steered"],
)
def test_a_run_resumed_anywhere_is_the_run_that_never_stopped(tmp_path, config, options):
    def new():
        return Validated(**config), trainer(callbacks=[checkpoints(tmp_path)], enable_checkpointing=True, **options)

    whole, run = new()
    run.fit(whole, batches(4), batches(1))
    saved = {int(path.stem.removeprefix("step=")): path for path in tmp_path.iterdir()}
    assert sorted(saved) == list(range(1, run.global_step + 1))
    # Lightning leaves out the validation after a checkpoint of the epoch's last batch, and so its observation.
    for update in (1, 3, 4, 5, 7, 8) if config != STEERED else (1, 3, 5, 7):
        resumed, again = new()
        again.fit(resumed, batches(4), batches(1), ckpt_path=saved[update], weights_only=True)
        assert [rate.hex() for rate in resumed.rates] == [rate.hex() for rate in whole.rates[update:]], update
        assert end_of(resumed) == end_of(whole), update


def test_the_length_of_an_epoch_is_learned_over_a_break_at_its_end(tmp_path):
    def new():
        return Module(budget="3ep"), trainer(callbacks=[checkpoints(tmp_path)], enable_checkpointing=True)

    def stream():
        return DataLoader(Stream(5), batch_size=1)

    whole, run = new()
    run.fit(whole, stream())
    resumed, again = new()
    again.fit(resumed, stream(), ckpt_path=tmp_path / "step=5.ckpt", weights_only=True)
    assert resumed.scheduler.budget == Epochs(3, 5)
    assert end_of(resumed) == end_of(whole)


def test_an_observation_is_in_the_checkpoint_that_validation_writes(tmp_path):
    keep = ModelCheckpoint(tmp_path, "{epoch}", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=False)
    options = {"max_epochs": 3, "enable_checkpointing": True}
    whole = Validated(**STEERED)
    trainer(callbacks=[keep], **options).fit(whole, batches(4), batches(1))
    assert len(whole.scheduler.decisions) == 3
    resumed = Validated(**STEERED)
    trainer(callbacks=[keep], **options).fit(
        resumed, batches(4), batches(1), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True
    )
    assert resumed.rates == whole.rates[4:]
    assert end_of(resumed) == end_of(whole)


def test_a_finished_run_is_not_trained_on(tmp_path):
    first, run = Module(budget="5ba"), trainer()
    run.fit(first, batches(4))
    run.save_checkpoint(tmp_path / "end.ckpt")
    resumed = Module(budget="5ba")
    trainer(min_steps=9).fit(resumed, batches(4), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert resumed.rates == []


def test_a_checkpoint_of_another_length_is_refused(tmp_path):
    run = trainer(max_steps=5)
    run.fit(Module(), batches(5))
    run.save_checkpoint(tmp_path / "five.ckpt")
    with pytest.raises(BudgetMismatch, match=r"made for Steps\(count=5\) and is being loaded into Steps\(count=20\)"):
        trainer(max_steps=20).fit(Module(), batches(5), ckpt_path=tmp_path / "five.ckpt", weights_only=True)


def test_a_resumed_run_goes_on_with_a_new_budget_on_purpose(tmp_path):
    run = trainer(max_epochs=1)
    run.fit(Module(budget="10ba"), batches(5))
    run.save_checkpoint(tmp_path / "half.ckpt")

    class Longer(Module):
        def on_train_start(self):
            self.lr_schedulers().rebudget("15ba")

    longer, run = Longer(budget="10ba"), trainer()
    run.fit(longer, batches(5), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert longer.rates == pytest.approx(line(10, BASE / 2))
    run.save_checkpoint(tmp_path / "spent.ckpt")

    class Rewarmed(Module):
        def on_train_start(self):
            self.lr_schedulers().rewarm("20ba", from_progress=0.5)
            self.trainer.should_stop = False

    rewarmed, run = Rewarmed(budget="15ba"), trainer()
    run.fit(rewarmed, batches(5), ckpt_path=tmp_path / "spent.ckpt", weights_only=True)
    assert rewarmed.rates == pytest.approx(line(5, BASE / 2))

"""GlideslopeCallback: whatever the budget counts, `fit` runs at the closed form, lands, stops in time, and resumes."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from keras_runs import BACKEND, Log, Traced, keras, one_weight, samples

from glideslope import Controller, Deadline, Decision, Epochs, Plateau, Steps, WallClock, parse_schedule
from glideslope.keras import BudgetExhausted, BudgetMismatch, BudgetSchedule, GlideslopeCallback

# Keras' variables answer NumPy 2 in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

MANY = 1000
FLOAT32 = {"rtol": 0, "atol": 2e-6}
"""Rates are read off a float32 weight that moves between 0 and -16."""


class Clock:
    """Time that passes only where it is told to: in a batch, in an evaluation."""

    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now

    def passing(self, batch=0.0, evaluation=0.0):
        """A callback that lets time pass; stands before the one that is tested."""

        class Passing(keras.callbacks.Callback):
            def on_train_batch_end(_, step, logs=None):  # noqa: N805
                self.now += batch if np.isscalar(batch) else batch.pop(0)

            def on_test_end(_, logs=None):  # noqa: N805
                self.now += evaluation

        return Passing()


class Killed(Exception):  # noqa: N818 - what happens to runs, not a mistake
    pass


@dataclass(frozen=True)
class Probe(Controller):
    """Halves the gain at every observation and writes down what it saw."""

    spec_name: ClassVar[str] = "probe"  # not `registered`: other tests go through all that are

    def start(self):
        return {}

    def decide(self, observation, state):
        seen = {name: getattr(observation, name) for name in ("update", "progress", "rate", "train_losses", "val_loss")}
        return Decision(observation.gain / 2, json.dumps(seen)), state


def fit(callback, count=20, batch_size=4, epochs=MANY, optimizer=None, before=(), loss=None, y=None, **options):
    """Train `one_weight` from rate 1 under the callback. Returns: the model and its log."""
    log, (x, zeros) = Log(), samples(count)
    losses = {} if loss is None else {"loss": loss}
    execution = {"steps_per_execution": options.pop("steps_per_execution", 1)}
    model = one_weight(optimizer or keras.optimizers.SGD(1.0), model_class=Traced, **losses, **execution)
    callbacks = [*before, callback, log]
    model.fit(
        x, zeros if y is None else y, batch_size, epochs, verbose=0, callbacks=callbacks, shuffle=False, **options
    )
    return model, log


def closed_form(text, updates):
    return [parse_schedule(text)(k / updates) for k in range(updates)]


# ------------------------------------------------------------ what is counted


@pytest.mark.parametrize(("text", "floor"), [("rex + warmup(20%)", 0.0), ("linear + floor(10%)", 0.1)])
def test_every_update_runs_at_its_rate_in_the_middle_of_epochs_too_then_fit_stops_and_the_rate_has_landed(text, floor):
    Traced.traces = 0
    callback = GlideslopeCallback(text, Steps(12))
    model, log = fit(callback)
    np.testing.assert_allclose(log.rates, closed_form(text, 12), **FLOAT32)
    assert float(model.optimizer.learning_rate) == pytest.approx(floor)
    assert (callback.updates, callback.progress, callback.exhausted) == (12, 1.0, True)
    assert BACKEND == "torch" or Traced.traces == 1


def test_updates_are_counted_where_gradients_are_accumulated():
    callback = GlideslopeCallback("linear", Steps(4))
    _, log = fit(callback, batch_size=2, optimizer=keras.optimizers.SGD(1.0, gradient_accumulation_steps=3))
    np.testing.assert_allclose(log.rates, [0, 0, 1, 0, 0, 0.75, 0, 0, 0.5, 0, 0, 0.25], **FLOAT32)
    assert callback.updates == 4


def test_updates_that_loss_scaling_skips_are_not_counted():
    x, y = samples(6)
    x[2] = np.inf
    log, callback = Log(), GlideslopeCallback("linear", Steps(5))
    model = one_weight(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=2.0))
    model.fit(x, y, 1, verbose=0, callbacks=[callback, log], shuffle=False)
    np.testing.assert_allclose(log.rates, [1, 0.8, 0, 0.6, 0.4, 0.2], **FLOAT32)
    assert callback.exhausted


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch has no steps_per_execution")
def test_a_rate_holds_for_the_updates_of_one_execution_and_all_of_them_count():
    callback = GlideslopeCallback("linear", Steps(12))
    _, log = fit(callback, batch_size=2, steps_per_execution=4)  # an epoch has executions of 4, 4 and 2
    np.testing.assert_allclose(log.rates, [4 * 1, 4 * 8 / 12, 2 * 4 / 12, 4 * 2 / 12], **FLOAT32)
    assert callback.updates == 14


def test_samples_are_counted_last_batches_that_are_smaller_included():
    callback = GlideslopeCallback("linear", "50sp")
    _, log = fit(callback, count=20, batch_size=8)
    np.testing.assert_allclose(log.rates, [1 - spent / 50 for spent in (0, 8, 16, 20, 28, 36, 40, 48)], **FLOAT32)
    assert callback.exhausted


def test_samples_are_not_counted_by_a_metric_of_the_models_own_that_has_the_losses_name():
    class Own(keras.Model):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.of_batches = keras.metrics.Mean(name="loss")

        @property
        def metrics(self):
            return [self.of_batches, *super().metrics]

    callback, (x, y) = GlideslopeCallback("linear", "20sp"), samples(4)
    model = one_weight(keras.optimizers.SGD(1.0), model_class=Own)
    model.fit(x, y, epochs=MANY, verbose=0, callbacks=[callback])
    assert callback.updates == 5


def test_epochs_need_no_length_where_keras_knows_it():
    callback = GlideslopeCallback("linear", Epochs(2.4))
    _, log = fit(callback)
    np.testing.assert_allclose(log.rates, closed_form("linear", 12), **FLOAT32)
    assert callback.budget == Epochs(2.4, updates_per_epoch=5)
    accumulating = GlideslopeCallback("linear", "2ep")
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=5)
    fit(accumulating, batch_size=2, optimizer=keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0))
    assert accumulating.updates == 4


def test_where_keras_does_not_know_it_the_first_epoch_teaches_it():
    log, callback = Log(), GlideslopeCallback("linear", "3ep")
    model, (x, y) = one_weight(keras.optimizers.SGD(1.0)), samples(4)
    events = keras.callbacks.CallbackList([callback, log], model=model, steps=None)
    model.stop_training = False
    events.on_train_begin()
    for epoch in range(MANY):
        events.on_epoch_begin(epoch)
        for batch in range(2):
            events.on_train_batch_begin(batch)
            model.train_on_batch(x, y)
            events.on_train_batch_end(batch)
        events.on_epoch_end(epoch)
        if model.stop_training:
            break
    np.testing.assert_allclose(log.rates, [1, 1, 4 / 6, 3 / 6, 2 / 6, 1 / 6], **FLOAT32)


# ------------------------------------------------------------ time


def test_a_clock_lands_within_one_update_however_long_a_batch_takes():
    clock, seconds = Clock(), [1.0, 0.0, 4.0, 2.5, 2.0, 7.0]
    callback = GlideslopeCallback("linear", WallClock(seconds=10), clock=clock)
    model, log = fit(callback, before=[clock.passing(batch=list(seconds))])
    began = np.cumsum([0.0, *seconds])
    np.testing.assert_allclose(log.rates, 1 - began[began < 10] / 10, **FLOAT32)
    assert float(model.optimizer.learning_rate) == 0
    assert callback.exhausted


def test_a_batch_that_begins_after_the_end_runs_at_the_landed_rate():
    clock = Clock()

    class SlowData(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            clock.now += 100.0 * (batch == 2)

    _, log = fit(GlideslopeCallback("linear", "10sec", clock=clock), before=[SlowData()])
    np.testing.assert_allclose(log.rates, [1, 1, 0], **FLOAT32)


def test_the_clock_runs_while_fit_runs_but_a_deadline_does_not_wait():
    for budget, second in ((WallClock(seconds=10), 0.7), (Deadline(1_800_005_510.0), 0.2)):
        clock, log, (x, y) = Clock(), Log(), samples(4)
        callback = GlideslopeCallback("linear", budget, clock=clock)
        model = one_weight(keras.optimizers.SGD(1.0))
        clock.now += 500.0  # data are loaded
        model.fit(x, y, verbose=0, callbacks=[clock.passing(batch=3.0), callback, log])
        clock.now += 5.0
        model.fit(x, y, verbose=0, callbacks=[callback, log])
        np.testing.assert_allclose(log.rates, [1, second], **FLOAT32)


@pytest.mark.parametrize(
    ("budget", "pause", "second_epoch"),
    [("10sec", False, 0.5), ("10sec", True, 0.9), (Deadline(1_800_005_010.0), True, 0.5)],
    ids=str,
)
def test_evaluation_counts_unless_the_clock_pauses_for_it(budget, pause, second_epoch):
    clock = Clock()
    callback = GlideslopeCallback("linear", budget, clock=clock, pause_evaluation=pause)
    before = [clock.passing(batch=1.0, evaluation=4.0)]
    _, log = fit(callback, batch_size=20, epochs=2, before=before, validation_data=samples(4))
    np.testing.assert_allclose(log.rates, [1, second_epoch], **FLOAT32)


def test_a_fit_broken_off_in_an_evaluation_does_not_stop_the_clock_of_the_next():
    class Break(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            raise Killed

    clock, log, (x, y) = Clock(), Log(), samples(4)
    callback = GlideslopeCallback("linear", "4sec", clock=clock, pause_evaluation=True)
    model = one_weight(keras.optimizers.SGD(1.0))
    with pytest.raises(Killed):
        model.fit(x, y, verbose=0, callbacks=[clock.passing(1.0), callback, log, Break()], validation_data=(x, y))
    model.fit(x, y, epochs=MANY, verbose=0, callbacks=[clock.passing(1.0), callback, log])
    np.testing.assert_allclose(log.rates, closed_form("linear", 4), **FLOAT32)


def test_no_update_follows_an_evaluation_that_used_up_the_time():
    clock = Clock()
    before = [clock.passing(batch=1.0, evaluation=60.0)]
    callback = GlideslopeCallback("linear", "10sec", clock=clock)
    model, _ = fit(callback, batch_size=10, before=before, validation_data=samples(4))
    assert callback.updates == 2
    assert float(model.optimizer.learning_rate) == 0


# ------------------------------------------------------------ a budget that changes


def test_a_budget_changed_on_the_way_continues_from_where_it_is_and_lands_at_the_new_end():
    callback = GlideslopeCallback("linear", Steps(100))
    change = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch or callback.rebudget(Steps(9)))
    _, log = fit(callback, before=[change])
    np.testing.assert_allclose(log.rates, [1, 0.99, 0.98, 0.97, 0.96, *(0.95 * k / 4 for k in (4, 3, 2, 1))], **FLOAT32)


def test_after_the_end_fit_is_refused_until_the_run_is_rewarmed():
    callback = GlideslopeCallback("linear", Steps(4))
    model, log = fit(callback)
    x, y = samples(20)
    with pytest.raises(BudgetExhausted, match=r"the budget 4ba is spent.*callback\.rewarm"):
        model.fit(x, y, 4, verbose=0, callbacks=[callback, log])
    assert len(log.rates) == 4
    callback.rewarm(Steps(8), from_progress=0.5)
    model.fit(x, y, 4, MANY, verbose=0, callbacks=[callback, log])
    np.testing.assert_allclose(log.rates[4:], [0.5, 0.375, 0.25, 0.125], **FLOAT32)


# ------------------------------------------------------------ the closed loop


def observations(callback):
    return [json.loads(decision.reason) for decision in callback.decisions]


def test_the_controller_sees_every_batchs_own_loss_and_its_gain_is_in_force_from_the_next_on():
    y = np.repeat([1.0, 5.0, 2.0], [4, 4, 2]).astype("float32")[:, None]
    callback = GlideslopeCallback("linear", Steps(12), Probe())
    own_loss = {"loss": lambda y, prediction: y + 0 * prediction, "y": y}
    fit(callback, count=10, epochs=2, validation_data=(np.ones((2, 1)), 7 * np.ones((2, 1))), **own_loss)
    first, second = observations(callback)
    np.testing.assert_allclose(first["train_losses"], [1, 5, 2], rtol=1e-6)
    np.testing.assert_allclose(second["train_losses"], [1, 5, 2], rtol=1e-6)
    assert (first["update"], first["progress"], first["rate"], first["val_loss"]) == (3, 0.25, 0.75, 7.0)
    assert (second["rate"], callback.gain) == (0.25, 0.25)
    steered, log = fit(GlideslopeCallback("linear", Steps(12), Probe()))
    gains = [2.0 ** -(k // 5) for k in range(12)]
    np.testing.assert_allclose(log.rates, np.multiply(gains, closed_form("linear", 12)), **FLOAT32)
    assert float(steered.optimizer.learning_rate) == 0


def test_a_policys_controller_steers_by_val_loss_and_nan_is_an_observation():
    y = np.array([[1.0], [np.nan]], "float32")
    own_loss = {"loss": lambda y, prediction: y + 0 * prediction, "y": y}
    callback = GlideslopeCallback("constant | plateau(patience=0, factor=0.5)", Steps(100))
    fit(callback, count=2, batch_size=1, epochs=3, validation_data=samples(2), **own_loss)
    assert [decision.gain for decision in callback.decisions] == [1.0, 0.5, 0.25]
    probe = GlideslopeCallback("constant", Steps(100), Probe())
    fit(probe, count=2, batch_size=1, epochs=1, **own_loss)
    assert repr(observations(probe)[0]["train_losses"]) == "[1.0, nan]"


# ------------------------------------------------------------ state


@pytest.mark.parametrize("schedule", ["rex + warmup(20%)", "linear | plateau(patience=0, factor=0.5)"])
def test_a_killed_run_that_is_resumed_is_the_run_that_never_stopped_and_spends_only_what_is_left(tmp_path, schedule):
    x, y = samples(20)

    def saving(callback):
        def save(epoch, logs):
            callback.model.save(tmp_path / "model.keras")
            (tmp_path / "budget.json").write_text(json.dumps(callback.state_dict(), allow_nan=False))

        return keras.callbacks.LambdaCallback(on_epoch_end=save)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise Killed

    def run(model, *callbacks):
        clock, log = Clock(), Log()
        log.weights = [model.get_weights()[0].item()]
        callback = GlideslopeCallback(schedule, "14sec", clock=clock)
        if (tmp_path / "budget.json").exists():
            callback.load_state_dict(json.loads((tmp_path / "budget.json").read_text()))
            clock.now += 1000.0  # what is loaded next takes a while
        after = [make(callback) for make in callbacks]
        try:
            callbacks = [clock.passing(batch=1.0), callback, log, *after]
            model.fit(x, y, 4, MANY, verbose=0, callbacks=callbacks, validation_data=(x, y), shuffle=False)
        except Killed:
            pass
        return callback, log

    whole, straight = run(one_weight(keras.optimizers.SGD(0.5), loss="mae"))
    first, begun = run(one_weight(keras.optimizers.SGD(0.5), loss="mae"), saving, lambda _: Kill())
    assert first.updates == 10
    resumed, ended = run(keras.saving.load_model(tmp_path / "model.keras"))
    assert resumed.updates == whole.updates == 14
    np.testing.assert_array_equal(begun.weights + ended.weights[1:], straight.weights)
    assert resumed.decisions == whole.decisions


def test_all_that_was_seen_and_decided_is_in_the_state_nan_included():
    callback, states = GlideslopeCallback("linear", Steps(100), Probe(), clock=Clock()), []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batch == 2 and states.append(json.dumps(callback.state_dict()))
    )
    y = np.array([[1.0], [np.nan], [1.0]], "float32")
    fit(callback, 3, 1, 2, y=y, loss=lambda y, prediction: y + 0 * prediction, before=[keep])
    fresh = GlideslopeCallback("linear", Steps(100), Probe(), clock=Clock())
    for text in states:
        fresh.load_state_dict(json.loads(text))
        assert json.dumps(fresh.state_dict()) == text
    assert '"unseen_losses": [1.0, "nan"]' in states[1]
    assert (fresh.gain, len(fresh.decisions), fresh.updates) == (0.5, 1, 5)


def test_the_base_rate_is_the_first_fits_whatever_the_loaded_model_shows():
    callback = GlideslopeCallback("linear", Steps(10))
    fit(callback, epochs=1)
    resumed = GlideslopeCallback("linear", Steps(10))
    resumed.load_state_dict(callback.state_dict())
    _, log = fit(resumed, optimizer=keras.optimizers.SGD(123.0))
    np.testing.assert_allclose(log.rates, [0.5, 0.4, 0.3, 0.2, 0.1], **FLOAT32)


def test_a_state_of_something_else_is_refused():
    state = GlideslopeCallback("linear", Steps(10)).state_dict()
    with pytest.raises(
        BudgetMismatch, match=r"made for Steps\(count=10\) .* into Steps\(count=20\)[\s\S]*budget='10ba'"
    ):
        GlideslopeCallback("linear", Steps(20)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"made with another plan: .*linear.* there, .*rex.* here"):
        GlideslopeCallback("rex", Steps(10)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"made with another controller: null there, .*plateau.* here"):
        GlideslopeCallback("linear", Steps(10), Plateau()).load_state_dict(state)
    with pytest.raises(ValueError, match="this state has version 2; this glideslope reads version 1"):
        GlideslopeCallback("linear", Steps(10)).load_state_dict(state | {"version": 2})


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one_cycle", "10ba"), r"moves momentum, which Keras compiles .* rate alone: 'sequence.*floor\(0\.1\)'\.$"),
        (("plan(momentum=rex)", "10ba"), r"moves momentum, which Keras compiles into its step as constants\.$"),
        (("plan(lr=rex, preamble=preamble(7ba, 0.1, 0.2))", "10ba"), r'"linear \+ warmup\(5%\)"'),
        (("rex", "2e9tok"), r"2000000000tok counts tokens, .* Give Samples"),
        (("rex | plateau", "10ba", Plateau()), "brings its own controller"),
    ],
)
def test_what_keras_cannot_do_is_refused_with_the_way_out(arguments, message):
    with pytest.raises(ValueError, match=message):
        GlideslopeCallback(*arguments)


def test_a_budget_in_tokens_is_refused_on_the_way_too():
    callback = GlideslopeCallback("rex", "10ba")
    for change in (lambda: callback.rebudget("10tok"), lambda: callback.rewarm("10tok", 0.5)):
        with pytest.raises(ValueError, match="counts tokens"):
            change()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (BudgetSchedule("linear", "10ba", 1.0), r"this SGD is a schedule or a function.* number, the peak"),
        (lambda: 0.1, "is a schedule or a function, which cannot be set"),
    ],
    ids=["schedule", "function"],
)
def test_a_rate_that_cannot_be_set_is_refused_with_the_way_out(rate, message):
    with pytest.raises(TypeError, match=message):
        fit(GlideslopeCallback("linear", Steps(4)), optimizer=keras.optimizers.SGD(rate))


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="older Keras has none")
def test_several_optimizers_are_refused_with_the_way_out():
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1)))
    with pytest.raises(TypeError, match=r"MultiOptimizer has no learning rate of its own\. .*BudgetSchedule"):
        fit(GlideslopeCallback("linear", Steps(4)), optimizer=several)


def test_a_rate_that_has_landed_before_is_no_base():
    with pytest.raises(ValueError, match=r"`learning_rate` is 0\.0, .* set the peak"):
        fit(GlideslopeCallback("linear", Steps(4)), optimizer=keras.optimizers.SGD(0.0))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there Keras runs nothing in threads")
def test_a_callback_outside_of_a_list_is_refused_as_keras_would_run_it_in_a_thread():
    (x, y), model = samples(20), one_weight(keras.optimizers.SGD(1.0))
    with pytest.raises(RuntimeError, match=r"Pass it in a list: fit\(…, callbacks=\[callback\]\)"):
        model.fit(x, y, 4, verbose=0, callbacks=GlideslopeCallback("linear", Steps(4)))


def test_samples_that_nothing_counts_are_refused():
    callback = GlideslopeCallback("linear", "100sp")
    callback.set_model(one_weight(keras.optimizers.SGD(1.0)))
    callback.on_train_begin()
    callback.on_train_batch_begin(0)
    with pytest.raises(ValueError, match=r"counts samples, but .* saw none in this batch.* Give Steps"):
        callback.on_train_batch_end(0)

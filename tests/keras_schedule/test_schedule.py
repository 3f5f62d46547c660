"""BudgetSchedule: the same closed form inside every backend's step, precise to the end, saved with its model."""

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from keras_runs import BACKEND, Log, Traced, keras, one_weight, samples

from glideslope import Epochs, Rex, Schedule, Steps, from_json, parse_plan, parse_schedule
from glideslope.core import namespace
from glideslope.core.value import members
from glideslope.keras import BudgetSchedule

# Keras' variables answer NumPy 2 in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

EXAMPLES = {
    "constant": ["constant"],
    "linear": ["linear"],
    "cosine": ["cosine", "cosine + warmup(10%)"],
    "exponential": ["exponential", "exponential(-12)"],
    "rex": ["rex", "rex(beta=0.9) @ plateaus(10) + floor(5%)", "rex @ milestones(0.5, 0.75) + delay(20%)"],
    "polynomial": ["polynomial(2)", "polynomial(0.5)"],
    "one_minus_sqrt": ["one_minus_sqrt"],
    "inverse_power": ["inverse_power(0.5, 8)"],
    "step": ["step", "step((0.33, 0.66), 0)"],
    "knots": ["knots((0, 1), (0.1, 0.7), (0.6, 0.9), (1, 0.001))"],
    "fractal": ["fractal(2)"],
    "schedule": ["schedule(linear)"],
    "cycles": ["cycles(cosine, 0.3, peak_decay=0.5)", "cycles(rex + warmup(10%), 0.08, 1.5)"],
    "sequence": ["sequence((constant, cycles(linear, 0.5), rex), (0.2, 0.6))"],
    "reflected": ["reflected(rex)"],
    "scaled": ["scaled(cosine, 0.5)"],
    "truncated": ["truncated(linear, of=4)", "truncated(cosine, of=120ba)"],
}


def test_every_profile_and_schedule_has_an_example():
    assert set(EXAMPLES) == set(members("profile", "schedule"))


@pytest.mark.parametrize("text", [text for texts in EXAMPLES.values() for text in texts])
def test_every_update_runs_at_the_closed_form_and_the_last_value_is_held(text):
    values = BudgetSchedule(text, Steps(60), peak=0.5)(keras.ops.arange(65, dtype="int32"))
    schedule = parse_schedule(text.replace("120ba", "2"))
    exact = [0.5 * schedule(min(k / 60, 1.0)) for k in range(65)]
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    np.testing.assert_allclose(values, exact, rtol=1e-7, atol=1e-12)


def test_tensorflows_tensors_are_left_to_its_own_functions(monkeypatch):
    class Tensor:
        """Has no array namespace, as TensorFlow's."""

    functions = SimpleNamespace(floor=lambda tensor: ("floor of", tensor))
    module = SimpleNamespace(Tensor=Tensor, experimental=SimpleNamespace(numpy=functions))
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    tensor = Tensor()
    assert namespace.floor(tensor) == ("floor of", tensor)


def test_neighbours_differ_at_a_hundred_million_updates():
    schedule = Schedule(Rex(), warmup=0.1)
    at = BudgetSchedule(schedule, Steps(10**8), peak=1.0)
    if BACKEND == "jax":  # as it is in a training step
        at = importlib.import_module("jax").jit(at)
    left = np.arange(1, 200)
    values = np.asarray(at(keras.ops.convert_to_tensor(10**8 - left, "int32")))
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(values, [schedule(1 - k / 1e8) for k in left], rtol=1e-7)


def test_rates_stay_float32_where_weights_are_half_precision():
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        assert float(BudgetSchedule("linear", "10ba", peak=1e-8)(0)) == pytest.approx(1e-8)
    finally:
        keras.config.set_floatx(before)


def test_training_moves_at_these_rates_and_is_compiled_once():
    log, (x, y) = Log(), samples(20)
    Traced.traces = 0
    model = one_weight(keras.optimizers.SGD(BudgetSchedule("rex + warmup(20%)", "12ba", 0.5)), model_class=Traced)
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[log])
    exact = [0.5 * parse_schedule("rex + warmup(20%)")(min(k / 12, 1.0)) for k in range(15)]
    np.testing.assert_allclose(log.rates, exact, atol=1e-6)
    assert BACKEND == "torch" or Traced.traces == 1


def test_with_accumulation_a_schedule_is_shown_batches_not_updates():
    log, (x, y) = Log(), samples(6)
    optimizer = keras.optimizers.SGD(BudgetSchedule("linear", "6ba", 1.0), gradient_accumulation_steps=2)
    one_weight(optimizer).fit(x, y, batch_size=1, verbose=0, callbacks=[log])
    np.testing.assert_allclose(log.rates, [0, 5 / 6, 0, 3 / 6, 0, 1 / 6], atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "budget"),
    [("rex(beta=0.9) @ plateaus(4) + warmup(10%)", "12ba"), ("truncated(cosine, of=7ep)", Epochs(2.4, 5))],
)
def test_a_saved_model_brings_its_schedule_and_goes_on_where_it_was(tmp_path, schedule, budget):
    x, y = samples(20)
    model = one_weight(keras.optimizers.SGD(BudgetSchedule(schedule, budget, 0.3)), loss="mse")
    model.fit(x, y + 1, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 5
    assert float(loaded.optimizer.learning_rate) == float(model.optimizer.learning_rate)
    saved = loaded.optimizer.get_config()["learning_rate"]
    assert saved["registered_name"] == "glideslope>BudgetSchedule"
    assert saved["config"] == BudgetSchedule(schedule, budget, 0.3).get_config()


def test_the_configuration_is_texts_and_numbers_and_gives_the_same_schedule():
    momentum = BudgetSchedule("one_cycle", "90ep*391ba", peak=0.1, hyperparameter="momentum")
    config = momentum.get_config()
    assert {type(value) for value in config.values()} == {str, float}
    again = BudgetSchedule.from_config(config)
    assert (again.plan, again.budget, again.peak) == (parse_plan("one_cycle"), Epochs(90, 391), 0.1)
    assert float(again(0)) == float(momentum(0)) == pytest.approx(0.95)
    assert from_json(json.loads(config["schedule"])) == parse_plan("one_cycle")


def test_what_a_schedule_cannot_be_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"counts seconds, but Keras .*\n?.*GlideslopeCallback\(…, '45min'\)"):
        BudgetSchedule("rex", "45min", peak=1.0)
    with pytest.raises(ValueError, match="counts epochs"):
        BudgetSchedule("rex", Epochs(3), peak=1.0)
    with pytest.raises(ValueError, match=r"unknown hyperparameter of the plan 'momentum'"):
        BudgetSchedule("rex", "10ba", peak=1.0, hyperparameter="momentum")
    with pytest.raises(ValueError, match=r"`peak` is inf, but must satisfy 0 <= peak < inf"):
        BudgetSchedule("rex", "10ba", peak=float("inf"))
    with pytest.raises(ValueError, match=r'before the budget.*"linear \+ warmup\(5%\)"'):
        BudgetSchedule("plan(lr=rex, preamble=preamble(7ba, 0.1, 0.2))", "10ba", peak=1.0)


def without_glideslope_keras(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("glideslope.keras")]:
        monkeypatch.delitem(sys.modules, name)


def test_without_keras_the_error_says_what_to_install(monkeypatch):
    without_glideslope_keras(monkeypatch)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r'pip install "glideslope\[keras\]"'):
        importlib.import_module("glideslope.keras")


def test_a_backend_that_is_missing_is_not_called_a_missing_keras(monkeypatch, tmp_path):
    without_glideslope_keras(monkeypatch)
    (tmp_path / "keras.py").write_text("import a_backend_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras")
    with pytest.raises(ModuleNotFoundError, match="a_backend_that_is_missing"):
        importlib.import_module("glideslope.keras")

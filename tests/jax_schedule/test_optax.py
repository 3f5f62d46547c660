"""optax: the same closed form inside jit, scan and vmap, with progress that float32 cannot blur."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glideslope import Epochs, Linear, Meter, Plan, Preamble, Rex, Schedule, Steps, WallClock, parse_schedule
from glideslope.core.meter import Clock
from glideslope.jax import optax_schedule, progress_schedule

TEXTS = [
    "rex",
    "cosine + warmup(10%)",
    "rex(beta=0.9) @ plateaus(10)",
    "sgdr(restarts=3)",
    "wsd",
    "fractal",
    "triangular",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_update_runs_at_the_closed_form(text):
    values = jax.jit(optax_schedule(text, Steps(60), peak=0.5))(jnp.arange(60))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, 0.5 * parse_schedule(text).sample(60), rtol=1e-7, atol=1e-9)


def test_the_last_value_is_held():
    at = optax_schedule("linear", "10ba", peak=1.0)
    assert [float(at(count)) for count in (9, 10, 11, 10**6)] == pytest.approx([0.1, 0.0, 0.0, 0.0], rel=1e-6)


def test_neighbours_differ_at_a_hundred_million_updates():
    at = jax.jit(optax_schedule(Schedule(Rex(), warmup=0.1), Steps(10**8), peak=1.0))
    last = np.array([at(jnp.int32(10**8 - left)) for left in range(1, 200)])
    assert (np.diff(last) > 0).all()
    exact = [float(Schedule(Rex(), warmup=0.1)(1 - left / 1e8)) for left in range(1, 200)]
    np.testing.assert_allclose(last, exact, rtol=1e-6)


def test_it_works_under_scan_and_vmap():
    at = optax_schedule("rex", Steps(8), peak=1.0)
    _, scanned = jax.lax.scan(lambda count, _: (count + 1, at(count)), jnp.int32(0), None, length=8)
    np.testing.assert_array_equal(scanned, jax.vmap(at)(jnp.arange(8)))


def test_optax_trains_with_it_and_with_an_injected_momentum():
    rate, momentum = (
        optax_schedule("one_cycle", Steps(10), peak=0.1, hyperparameter=name) for name in ("lr", "momentum")
    )
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=momentum)
    weights = jnp.ones(3)
    state = optimizer.init(weights)
    seen = []
    for _ in range(10):
        updates, state = optimizer.update(2 * weights, state, weights)
        weights = optax.apply_updates(weights, updates)
        seen.append(float(state.hyperparams["momentum"]))
    assert seen[0] == pytest.approx(0.95)
    assert seen[5] == pytest.approx(0.85)
    assert float(jnp.abs(weights).max()) < 1


def test_a_wall_clock_passes_progress_in_and_nothing_is_compiled_again():
    now = [0.0]
    meter = Meter(WallClock(seconds=10), Clock(monotonic=lambda: now[0], wall=lambda: now[0]))
    traces = []
    at = progress_schedule("linear", meter.budget, peak=2.0)

    @jax.jit
    def update(progress):
        traces.append(1)
        return at(progress)

    rates = []
    for second in range(12):
        now[0] = float(second)
        rates.append(float(update(np.float32(meter.progress))))
    assert rates == pytest.approx([2 - 0.2 * second for second in range(10)] + [0.0, 0.0], abs=1e-6)
    assert len(traces) == 1


def test_what_optax_cannot_count_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="counts seconds, but optax counts updates"):
        optax_schedule("rex", "45min", peak=1.0)
    with pytest.raises(ValueError, match="counts epochs"):
        optax_schedule("rex", Epochs(3), peak=1.0)
    with pytest.raises(ValueError, match=r"unknown hyperparameter of the plan 'momentum'"):
        optax_schedule("rex", "10ba", peak=1.0, hyperparameter="momentum")


def test_a_preamble_is_refused_with_the_way_out():
    plan = Plan({"lr": Linear()}, Preamble(Steps(3), 0.0, 0.5))
    with pytest.raises(ValueError, match=r"comes before the budget.*linear \+ warmup"):
        optax_schedule(plan, "10ba", peak=1.0)

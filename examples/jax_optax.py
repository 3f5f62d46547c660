"""JAX and optax: the schedule inside the compiled update, for budgets in updates and for budgets in time.

    python examples/jax_optax.py
    python examples/jax_optax.py --budget 5sec

Updates are counted by optax, so `optax_schedule` is all. Time only the host can see: there a `Meter` counts, and its
progress is an argument of the compiled update, which is compiled once.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from glideslope import Meter, parse_budget
from glideslope.jax import optax_schedule, progress_schedule

TRAIN, PEAK = 1500, 0.1


def logits_of(weights: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
    return jax.nn.relu(inputs @ weights["in"]) @ weights["out"]


def loss_of(weights: dict[str, jax.Array], inputs: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits_of(weights, inputs), labels).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="900ba", help="updates (900ba) or time (5sec)")
    parser.add_argument("--schedule", default="rex + warmup(10%)", help="text of a schedule")
    args = parser.parse_args()
    budget = parse_budget(args.budget)
    timed = budget.unit != "updates"

    if timed:
        rate = progress_schedule(args.schedule, budget, PEAK)
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=PEAK, momentum=0.9)
    else:
        rate = optax_schedule(args.schedule, budget, PEAK)
        optimizer = optax.sgd(rate, momentum=0.9)

    data, generator = load_digits(), np.random.default_rng(0)
    inputs, labels = jnp.array(data.data / 16, jnp.float32), jnp.array(data.target)

    @jax.jit
    def update(weights, state, rows, progress):
        if timed:
            state.hyperparams["learning_rate"] = rate(progress)
        loss, gradients = jax.value_and_grad(loss_of)(weights, inputs[rows], labels[rows])
        changes, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, changes), state, loss

    shapes = {"in": (64, 64), "out": (64, 10)}
    weights = {name: jnp.array(generator.normal(0, 0.1, shape), jnp.float32) for name, shape in shapes.items()}
    state = optimizer.init(weights)
    update(weights, state, jnp.arange(50), 0.0)  # compile it before the clock runs
    meter = Meter(budget)
    while not meter.exhausted:
        rows = jnp.array(generator.integers(TRAIN, size=50))
        weights, state, loss = update(weights, state, rows, meter.progress)
        loss.block_until_ready()  # JAX returns before the work is done, and would run ahead of the clock
        meter.advance()

    over = meter.spent - budget.limit

    last = rate(meter.progress if timed else meter.updates)
    accuracy = (logits_of(weights, inputs[TRAIN:]).argmax(axis=1) == labels[TRAIN:]).mean()
    print(f"landed at rate {last:.3g} after {meter.updates} updates")
    if timed:
        print(f"{1000 * over:.1f} ms over {budget}")
    print(f"test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()

"""Keras: one callback; the rate lands, and `fit` ends, where the budget does.

    KERAS_BACKEND=torch python examples/keras_fit.py
    KERAS_BACKEND=jax python examples/keras_fit.py --budget 20ep
    KERAS_BACKEND=jax python examples/keras_fit.py --budget "45min reserve 2min" --schedule "cosine + warmup(5%)"

`fit` gets more epochs than any budget holds, so the budget ends it. A budget in updates that is known beforehand needs
no callback: Adam(BudgetSchedule("rex", "10000ba", peak=3e-3)).
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras' own default is TensorFlow

import keras
from sklearn.datasets import load_digits

from glideslope.keras import GlideslopeCallback


def build() -> keras.Model:
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate=3e-3), loss=loss, metrics=["accuracy"])  # the rate is the peak
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="10sec", help="time, epochs (20ep), samples (1e5sp) or updates (500ba)")
    parser.add_argument("--schedule", default="rex + warmup(10%)", help="text of a schedule")
    args = parser.parse_args()

    data = load_digits()
    inputs, labels = data.data.astype("float32") / 16, data.target
    keras.utils.set_random_seed(0)
    model, callback = build(), GlideslopeCallback(args.schedule, args.budget)
    model.fit(inputs[:1500], labels[:1500], batch_size=50, epochs=10**6, verbose=0, callbacks=[callback])

    rate = float(model.optimizer.learning_rate)
    print(f"landed at rate {rate:.3g} after {callback.updates} updates on {keras.backend.backend()}")
    if callback.budget.unit == "seconds":
        spent = callback.state_dict()["position"]["running_seconds"]
        print(f"{1000 * (spent - callback.budget.limit):.1f} ms over {callback.budget}")
    _, accuracy = model.evaluate(inputs[1500:], labels[1500:], verbose=0)
    print(f"test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()

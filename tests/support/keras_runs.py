"""What the tests of Keras train. Without a KERAS_BACKEND they run on JAX, beside all other tests."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

BACKEND = keras.backend.backend()


def one_weight(optimizer, loss=lambda y, prediction: prediction, model_class=keras.Model, **compile_options):
    """A model whose only weight, 0 at first, falls by the learning rate in every update: its gradient is 1."""
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    model = model_class(inputs, outputs)
    model.compile(optimizer, loss=loss, **compile_options)
    return model


def samples(count):
    """Inputs and targets for `one_weight`: (count, 1) ones, (count, 1) zeros."""
    return np.ones((count, 1), "float32"), np.zeros((count, 1), "float32")


class Log(keras.callbacks.Callback):
    """Keeps the weight of `one_weight` after every batch, and hence by how much each batch moved it."""

    def __init__(self):
        super().__init__()
        self.weights = [0.0]

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights()[0].item())

    @property
    def rates(self):
        """The learning rates that were really in force, one per batch."""
        return -np.diff(self.weights)


class Traced(keras.Model):
    """Counts how often its training step was traced, which is how often it was compiled."""

    traces = 0

    def train_step(self, *args, **options):
        type(self).traces += 1
        return super().train_step(*args, **options)

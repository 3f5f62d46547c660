"""All libraries of the table, ours first. Each is built when it is asked for: importing them takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from conformance_ours import glideslope, glideslope_jax, glideslope_keras
from conformance_peers_alone import composer_library, timm_library
from conformance_peers_counted import keras_library, optax_library
from conformance_peers_on_torch import pytorch_optimizer_library, pytorch_scheduler_library, transformers_library
from conformance_peers_torch import torch_library
from conformance_runs import Library

OURS: Mapping[str, Callable[[], Library]] = {
    "glideslope": glideslope,
    "glideslope.jax": glideslope_jax,
    "glideslope.keras": glideslope_keras,
}
PEERS: Mapping[str, Callable[[], Library]] = {
    "torch": torch_library,
    "transformers": transformers_library,
    "pytorch_optimizer": pytorch_optimizer_library,
    "pytorch-scheduler": pytorch_scheduler_library,
    "timm": timm_library,
    "mosaicml": composer_library,
    "optax": optax_library,
    "keras": keras_library,
}
"""Distribution → what builds its `Library`, whose version is None where it is not installed."""
LIBRARIES = {**OURS, **PEERS}

APART = ("glideslope.keras", "keras")
"""Measured in a process of their own: Keras keeps the backend it was imported with, and somebody else may have chosen.
NumPy's is the one that computes a schedule without compiling anything."""

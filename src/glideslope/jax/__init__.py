"""Glideslope for JAX and optax."""

from glideslope.jax.schedule import optax_schedule, progress_schedule

__all__ = ["optax_schedule", "progress_schedule"]

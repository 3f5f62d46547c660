"""One formula: a float, a NumPy array, a torch tensor and a traced JAX array give the same multipliers."""

import jax
import numpy as np
import pytest
import torch

from glideslope import OneMinusSqrt

UPDATES = 60
SHARES = np.arange(UPDATES + 1) / UPDATES

# Libraries differ in the last bits of cos, exp, sqrt and powers, and XLA fuses multiplications with additions: a few
# times 1.1e-16. A profile as steep as Rex(0.999) or a root at 0 multiplies that by its slope.
TOLERANCE = {"rtol": 1e-12, "atol": 2e-15}


@pytest.fixture(scope="module", autouse=True)
def doubles_in_jax():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def by_floats(multiplier):
    return np.array([multiplier(float(share)) for share in SHARES])


def test_floats_give_floats(multiplier):
    assert type(multiplier(0.3)) is float
    assert isinstance(multiplier(np.float64(0.3)), float)
    assert multiplier(1) == multiplier(1.0)


def test_numpy_equals_floats(multiplier):
    values = multiplier(SHARES)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, by_floats(multiplier), **TOLERANCE)


def test_torch_equals_floats(multiplier):
    values = multiplier(torch.from_numpy(SHARES))
    assert values.dtype == torch.float64
    np.testing.assert_allclose(values.numpy(), by_floats(multiplier), **TOLERANCE)


def test_jitted_jax_equals_floats(multiplier):
    values = jax.jit(multiplier)(SHARES)
    assert values.dtype == np.float64
    np.testing.assert_allclose(np.asarray(values), by_floats(multiplier), **TOLERANCE)


def test_shapes_are_kept(multiplier):
    for shape in ((), (1,), (0,), (2, 3)):
        assert multiplier(torch.full(shape, 0.3, dtype=torch.float64)).shape == shape
        assert np.shape(multiplier(np.full(shape, 0.3))) == shape


def test_single_precision_stays_single_precision(multiplier):
    shares = SHARES[1::7].astype(np.float32)
    numpy, torched = multiplier(shares), multiplier(torch.from_numpy(shares))
    assert numpy.dtype == np.float32
    assert torched.dtype == torch.float32
    np.testing.assert_allclose(torched.numpy(), numpy, rtol=1e-3, atol=1e-5)


def test_samplings_follow_the_same_law(sampling):
    floats = np.array([sampling(float(share)) for share in SHARES])
    np.testing.assert_array_equal(sampling(SHARES), floats)
    np.testing.assert_array_equal(sampling(torch.from_numpy(SHARES)).numpy(), floats)
    np.testing.assert_allclose(np.asarray(jax.jit(sampling)(SHARES)), floats, rtol=0, atol=2e-16)
    assert sampling(torch.tensor([0.3, 0.7])).dtype == torch.float32
    assert type(sampling(0.3)) is float


def test_the_rates_of_a_budget_come_from_the_same_formula(multiplier):
    np.testing.assert_array_equal(multiplier.sample(UPDATES), multiplier(SHARES[:-1]))


def test_a_progress_of_another_type_is_refused():
    with pytest.raises(
        TypeError, match=r"progress is a list, but must be a float, a NumPy array, a torch tensor or a JAX"
    ):
        OneMinusSqrt()([0.5])

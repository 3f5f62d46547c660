"""A compiled update: tensor rates change without a recompilation, and updates are still counted."""

import pytest
import torch

from glideslope.torch import BudgetScheduler

UPDATES = 12

# PyTorch's own compiler calls what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("whole_step", [True, False])
def test_tensor_rates_recompile_nothing_and_train_as_floats_do(momentum, whole_step):
    def train(compiled):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        rate = torch.tensor(0.1) if compiled else 0.1
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, foreach=True)
        scheduler = BudgetScheduler(optimizer, "rex + warmup(25%)", f"{UPDATES}ba")
        inputs = torch.randn(8, 4)

        def update():
            model(inputs).square().mean().backward()
            optimizer.step()

        if compiled and whole_step:
            update = torch.compile(update, backend="eager")
        seen, counts = [], []
        step = torch.compile(optimizer.step, backend="eager") if compiled and not whole_step else None
        while not scheduler.exhausted:
            seen.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.zero_grad()
            if step is None:
                update()
            else:
                model(inputs).square().mean().backward()
                step()
            scheduler.step()
            scheduler.step()  # would count if the compiled step hid its updates
            counts.append(graphs())
        assert not compiled or optimizer.param_groups[0]["lr"] is rate
        return seen, counts, model.weight.detach().clone()

    plain_rates, _, plain = train(compiled=False)
    rates, counts, weight = train(compiled=True)
    assert len(rates) == UPDATES
    assert rates == pytest.approx(plain_rates, rel=1e-6)
    assert torch.allclose(weight, plain, rtol=1e-5)
    assert counts[2] == counts[-1] > 0  # momentum buffers appear at the second update

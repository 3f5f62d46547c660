"""Old states: files that earlier versions saved stay in `tests/assets` and must load."""

import json
from pathlib import Path

import pytest
import torch

from glideslope.torch import BudgetScheduler

ASSETS = Path(__file__).parents[1] / "assets"


@pytest.mark.parametrize("version", [1])
def test_a_saved_state_of_every_version_loads_and_goes_on(version):
    state = json.loads((ASSETS / f"scheduler_state_v{version}.json").read_text())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=123.0, momentum=0.9)
    scheduler = BudgetScheduler(optimizer, "one_cycle | plateau", "20ba")
    scheduler.load_state_dict(state)
    # Seven of ten updates of a 10ba budget at rate 0.5, made 20ba after the fifth; one decay by the controller.
    assert scheduler.last_epoch == 7
    assert scheduler.progress == 0.5 + 0.5 * 2 / 15
    assert scheduler.gain == 0.1
    multiplier = 0.1 + 0.9 * (1 - abs(2 * scheduler.progress - 1))
    assert scheduler.get_last_lr() == pytest.approx([0.5 * 0.1 * multiplier], rel=1e-12)

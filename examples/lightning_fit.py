"""Lightning: one line in `configure_optimizers`; the rate lands, and the fit ends, where the budget does.

    python examples/lightning_fit.py
    python examples/lightning_fit.py --budget 20ep
    python examples/lightning_fit.py --budget "45min reserve 2min" --schedule one_cycle

The trainer gets no limit of its own (`max_epochs=-1`), so the budget ends the fit. The reserve is for what comes after:
here the test, and a last validation where there is one.
"""

import argparse

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from glideslope.integrations.lightning import lightning_config


class Digits(lightning.LightningModule):
    def __init__(self, schedule: str, budget: str) -> None:
        super().__init__()
        self.schedule, self.budget = schedule, budget
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        inputs, labels = batch
        return cross_entropy(self.model(inputs), labels)

    def test_step(self, batch: list[Tensor], index: int) -> None:
        inputs, labels = batch
        self.log("accuracy", (self.model(inputs).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return lightning_config(optimizer, self.schedule, self.trainer, self.budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="10sec reserve 1sec", help="time, epochs (20ep) or updates (500ba)")
    parser.add_argument("--schedule", default="rex + warmup(10%)", help="text of a schedule or plan")
    args = parser.parse_args()

    data = load_digits()
    inputs, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    train, test = TensorDataset(inputs[:1500], labels[:1500]), TensorDataset(inputs[1500:], labels[1500:])

    lightning.seed_everything(0, verbose=False)
    module = Digits(args.schedule, args.budget)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=-1, accelerator="cpu", **quiet)
    trainer.fit(module, DataLoader(train, batch_size=50, shuffle=True))
    scheduler = module.lr_schedulers()
    print(f"landed at rate {scheduler.get_last_lr()[0]:.3g} after {scheduler.last_epoch} updates")
    if scheduler.budget.unit == "seconds":
        spent = scheduler.state_dict()["position"]["running_seconds"]
        print(f"{1000 * (spent - scheduler.budget.limit):.1f} ms over {scheduler.budget}")
    (results,) = trainer.test(module, DataLoader(test, batch_size=297), verbose=False)
    print(f"test accuracy {results['accuracy']:.1%}")


if __name__ == "__main__":
    main()

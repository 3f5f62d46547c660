"""What the papers' settings cost: floating-point operations of a training run at 100 %, counted on shapes alone.

A forward pass of one example is counted by PyTorch on the meta device (products and convolutions, no
numbers), times three for the backward pass, times examples, times epochs. A run takes as long as its operations at the
rate that a GPU sustains, or as its updates at the time that an update's launches take, whichever is more. Both are the
reader's to say: the defaults are orders of magnitude for an A100 in mixed precision, not measurements.

    python benchmarks/flops.py --tflops 30 --launch-ms 10

The last column is a comparison as the REX paper has it: budgets of 1 to 100 %, 8 schedules, 2 optimizers, four rates
tuned at one seed, three seeds reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glideslope.trials.lookup import find_task
from glideslope.trials.task import Task

EXAMPLES = {
    "mnist-vae": (55_000, (784,)),
    "cifar10-resnet20": (45_000, (3, 32, 32)),
    "cifar10-resnet38": (45_000, (3, 32, 32)),
    "cifar10-resnet9": (45_000, (3, 32, 32)),
    "cifar10-resnet18": (45_000, (3, 32, 32)),
    "cifar100-resnet38": (45_000, (3, 32, 32)),
    "cifar100-vgg16": (45_000, (3, 32, 32)),
    "stl10-wrn16-8": (4_500, (3, 96, 96)),
    "svhn-wrn28": (68_257, (3, 32, 32)),
    "tinyimagenet-resnet56": (95_000, (3, 64, 64)),
    "imagenet-resnet18": (1_276_167, (3, 224, 224)),
    "imagenet-resnet50": (1_276_167, (3, 224, 224)),
    "imagenet-resnet101": (1_276_167, (3, 224, 224)),
    "voc-yolov3": (14_896, (3, 416, 416)),
    "coco-retinanet": (113_287, (3, 256, 256)),
    "fmnist-capsnet": (55_000, (1, 28, 28)),
    "cifar10-ncsn": (45_000, (3, 32, 32)),
}
"""Task → training examples at full size, and the shape of one."""

SENTENCES = {
    "cola": 7_696,
    "mnli": 353_432,
    "mrpc": 3_302,
    "qnli": 94_269,
    "qqp": 327_462,
    "rte": 2_241,
    "sst2": 60_615,
}
"""Corpus of GLUE → training examples, less the tenth for validation."""
WORDS = 929_589
"""Of the training text of Penn Treebank."""
PIECES = 128
ENCODER = 12 * (4 * 768**2 + 2 * 768 * 3072)
"""Weights of BERT-base that every word piece meets."""


def forward_flops(call: Callable[[], object]) -> int:
    """Operations of a call, a multiplication and an addition apart."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def _called(task: Task, model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    if task.name == "mnist-vae":
        return lambda: model(inputs, torch.zeros(1, 2, device="meta"))
    if task.name == "cifar10-ncsn":
        return lambda: model(inputs, torch.zeros(1, dtype=torch.long, device="meta"))
    return lambda: model(inputs)


def run_flops(name: str) -> float:
    """Of a whole training run of a task at its maximum."""
    examples, shape = EXAMPLES[name]
    task = find_task(name)
    with torch.device("meta"):
        model = task.model(0).eval()
    return (
        3.0
        * forward_flops(_called(task, model, torch.zeros(1, *shape, device="meta")))
        * examples
        * task.maximum_epochs
    )


def text_flops(name: str) -> float:
    """The same of a task on Penn Treebank: a product with every weight but the embedding's, for every word."""
    task = find_task(name)
    with torch.device("meta"):
        weights = {key: weight.numel() for key, weight in task.model(0).named_parameters() if weight.ndim == 2}
    met = sum(number for key, number in weights.items() if not key.startswith("embedding"))
    return 3.0 * 2 * met * WORDS * task.maximum_epochs


TABLE = 1.91 * (4 + 3) * 8 * 2
"""Full runs that such a comparison is worth: the budgets add up to 1.91."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=30.0, help="what a GPU sustains")
    parser.add_argument("--launch-ms", type=float, default=10.0, help="what an update takes at least")
    arguments = parser.parse_args()
    rows = [(name, find_task(name), run_flops(name), EXAMPLES[name][0]) for name in EXAMPLES]
    for name in ("ptb-lstm", "ptb-lstm-arc"):
        task = find_task(name)
        rows.append((name, task, text_flops(name), WORDS // task.length))
    sentences = sum(SENTENCES.values())
    rows.append(("glue-bert, 7 corpora", find_task("glue-bert"), 3.0 * 2 * ENCODER * sentences * PIECES * 3, sentences))
    print(f"{'task':24}{'epochs':>8}{'updates':>10}{'PFLOP':>10}{'run, h':>10}{'table, h':>10}")
    for name, task, flops, examples in rows:
        updates = examples // task.batch_size * task.maximum_epochs
        hours = max(flops / (arguments.tflops * 1e12), updates * arguments.launch_ms / 1e3) / 3600
        table = hours * TABLE
        print(f"{name:24}{task.maximum_epochs:8}{updates:10,}{flops / 1e15:10,.1f}{hours:10,.2f}{table:10,.0f}")


if __name__ == "__main__":
    main()

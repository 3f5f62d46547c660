"""What each rank of a distributed `Trainer` does; a module of its own, so that new processes can import it."""

import json
import os

import torch

from glideslope import Clock

RANKS = 2


class Reader(torch.nn.Module):
    """A model that computes for 1 s on rank 0 and for longer on the others, by clocks that do not agree either."""

    def __init__(self, rank):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 2)
        self.rank, self.now = rank, 1000.0 * rank
        self.clock = Clock(monotonic=lambda: self.now, wall=lambda: 1_800_000_000.0 + self.now)

    def forward(self, input_ids, labels):
        self.now += 1.0 + 0.37 * self.rank
        logits = self.embedding(input_ids).mean(1)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(rank, folder, budget):
    """Rates in force in a run of one budget, and how many tokens the Trainer and the scheduler counted."""
    from transformers import Trainer, TrainingArguments

    from glideslope.integrations.transformers import GlideslopeCallback

    model = Reader(rank)
    callback = GlideslopeCallback("linear", budget, clock=model.clock)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            learning_rate=1.0,
            num_train_epochs=99,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            logging_steps=1,
            include_num_input_tokens_seen="all",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            ddp_backend="gloo",
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=[{"input_ids": torch.arange(5), "labels": index % 2} for index in range(16)],
        callbacks=[callback],
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    return {
        "world_size": trainer.args.world_size,
        "rates": rates,
        "updates": callback.scheduler.last_epoch,
        "tokens": [trainer.state.num_input_tokens_seen, callback.scheduler.state_dict()["position"]["tokens"]],
    }


def work(rank, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
    # By a file: a free port may be somebody else's by the time that all have come.
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    runs = [train(rank, folder, budget) for budget in ("20sec", "320tok")]
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(runs, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort an ordinary exit: "terminate called without an active exception"

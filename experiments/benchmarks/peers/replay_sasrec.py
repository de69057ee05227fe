# pyright: reportMissingImports=false
"""SASRec of RePlay (`replay-rec[torch]`): its model, its parquet reader, its filter of seen items, under Lightning."""

import itertools
import sys
import tempfile
import warnings
from pathlib import Path

import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import BCESampled, CESampled
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms
from turns import Settings, Turned, Turns, histories, timed_lists


class Negatives(torch.nn.Module):
    """Uniform negatives: one per position for the binary loss, a list per user for the softmax."""

    def __init__(self, s: Settings):
        super().__init__()
        self.s = s

    def forward(self, batch: dict) -> dict:
        rows, length = batch["padding_mask"].shape
        shape = (rows, length, 1) if self.s.loss == "bce" else (rows, self.s.negatives)
        return {**batch, "negative_labels": torch.randint(0, self.s.items, shape)}


class Between(lightning.Callback):
    """Holds the training loop between turns."""

    def __init__(self, turned: Turned):
        self.turned = turned

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        # RePlay also trains the first item of a history from padding alone: not counted, as nobody else does so.
        real = batch["padding_mask"] & batch["target_padding_mask"].reshape(batch["padding_mask"].shape)
        self.turned.step(int(real.sum()), real.numel())
        pl_module.train()
        trainer.should_stop = self.turned.stopped
        if self.turned.stopped:
            trainer.limit_train_batches = 0


def trainer(*callbacks: lightning.Callback, **options) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **options,
    )


def write(s: Settings, folder: Path) -> dict:
    """The histories as parquet, items from 0; what the reader is told of the columns."""
    offsets, items = histories(s.events)
    lists = [items[start:stop] - 1 for start, stop in itertools.pairwise(offsets)]
    column = pa.array(lists, pa.list_(pa.int64()))
    table = pa.table({"user_id": np.arange(len(lists)), "item_id": column, "seen_ids": column})
    pq.write_table(table, folder / "events.parquet")
    longest = int(np.diff(offsets).max())
    # One more item than the model reads, because targets are the inputs shifted by one.
    train = {"item_id": {"shape": s.length + 1, "padding": s.items}}
    predict = {
        "user_id": {},
        "item_id": {"shape": s.length, "padding": s.items},
        "seen_ids": {"shape": longest, "padding": -1},
    }
    return {"train": train, "predict": predict}


def build(s: Settings) -> tuple[SasRec, TensorSchema]:
    schema = TensorSchema(
        [
            TensorFeatureInfo(
                "item_id",
                is_seq=True,
                feature_type=FeatureType.CATEGORICAL,
                embedding_dim=s.width,
                padding_value=s.items,
                cardinality=s.items,
                feature_hint=FeatureHint.ITEM_ID,
                feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
            )
        ]
    )
    model = SasRec.from_params(
        schema,
        embedding_dim=s.width,
        num_heads=s.heads,
        num_blocks=s.layers,
        max_sequence_length=s.length,
        dropout=s.dropout,
    )
    if s.loss != "full":
        model.loss = BCESampled() if s.loss == "bce" else CESampled(ignore_index=s.items)
        model.loss.logits_callback = model.get_logits
    return model, schema


def main() -> None:
    turns, s = Turns(), Settings.read(sys.argv[1])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(s.threads)
    lightning.seed_everything(s.seed)
    model, schema = build(s)
    transforms = make_default_sasrec_transforms(schema)
    if s.loss != "full":
        transforms["train"].insert(-1, Negatives(s))
    with tempfile.TemporaryDirectory() as folder:
        metadata, path = write(s, Path(folder)), str(Path(folder) / "events.parquet")
        train = ParquetModule(s.batch, metadata, transforms, train_path=path)
        predict = ParquetModule(256, metadata, transforms, predict_path=path)

        def lists() -> np.ndarray:
            found = TorchTopItemsCallback(s.list_length, "user_id", [SeenItemsFilter(s.items, "seen_ids")])
            trainer(found).predict(LightningModule(model), predict, return_predictions=False)
            users, items, _ = found.get_result()
            table = np.zeros(items.shape, np.int32)
            table[users.numpy()] = items.numpy() + 1
            return table

        def ready() -> None:
            turns.ready("replay-rec", "torch", "lightning", parameters=sum(p.numel() for p in model.parameters()))

        turned = Turned(turns, s.warmup, ready, lambda out: timed_lists(lists, out))
        module = LightningModule(model, optimizer_factory=OptimizerFactory(learning_rate=s.learning_rate))
        trainer(Between(turned), max_epochs=-1, limit_val_batches=0).fit(module, train)


if __name__ == "__main__":
    main()

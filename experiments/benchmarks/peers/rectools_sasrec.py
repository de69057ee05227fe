# pyright: reportMissingImports=false
"""SASRec of RecTools (`rectools[torch]`), trained by its own `fit` and asked by its own `recommend`."""

import sys
import warnings

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from turns import Settings, Turned, Turns, timed_lists

LOSSES = {"full": "softmax", "bce": "BCE", "sampled": "sampled_softmax"}


class Between(Callback):
    """Holds the training loop between turns."""

    def __init__(self, turned: Turned):
        self.turned = turned

    def __deepcopy__(self, memo):
        return self  # RecTools copies its trainer; the line to the parent cannot be copied

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.turned.step(int((batch["y"] > 0).sum()), batch["y"].numel())
        pl_module.train()  # `recommend` leaves it in evaluation mode
        trainer.should_stop = self.turned.stopped
        if self.turned.stopped:
            trainer.limit_train_batches = 0


def main() -> None:
    turns, s = Turns(), Settings.read(sys.argv[1])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(s.threads)
    seed_everything(s.seed)
    events = pd.read_csv(s.events)
    users = np.unique(events["user"].to_numpy())
    events = events.rename(columns={"user": Columns.User, "item": Columns.Item})
    events[Columns.Datetime] = pd.to_datetime(events.pop("timestamp"), unit="s")
    events[Columns.Weight] = 1.0
    dataset = Dataset.construct(events)

    def lists() -> np.ndarray:
        model.is_fitted = True  # it is not so before `fit` returns, and nothing else stands in the way
        found = model.recommend(users=users, dataset=dataset, k=s.list_length, filter_viewed=True)
        table = np.zeros((len(users), s.list_length), np.int32)
        table[np.searchsorted(users, found[Columns.User]), found[Columns.Rank] - 1] = found[Columns.Item]
        return table

    def ready() -> None:
        parameters = sum(p.numel() for p in model.torch_model.parameters())
        turns.ready("rectools", "torch", "pytorch-lightning", parameters=parameters)

    turned = Turned(turns, s.warmup, ready, lambda out: timed_lists(lists, out))

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[Between(turned)],
        )

    model = SASRecModel(
        n_factors=s.width,
        n_blocks=s.layers,
        n_heads=s.heads,
        dropout_rate=s.dropout,
        session_max_len=s.length,
        batch_size=s.batch,
        lr=s.learning_rate,
        loss=LOSSES[s.loss],
        n_negatives=s.negatives if s.loss == "sampled" else 1,
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    model.fit(dataset)


if __name__ == "__main__":
    main()

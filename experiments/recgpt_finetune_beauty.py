"""recjax train recgpt_finetune_beauty

RecGPT on one catalog, Amazon Beauty (2014, 5-core), by an encoder that has learned from users of other catalogs:

    RECJAX_ENCODERS=FOLDER recjax align align_minilm
    RECJAX_ENCODERS=FOLDER recjax train recgpt_finetune_beauty

From a tenth of the users (all are asked), and on a catalog of your own:

    --set data.user_share=0.1 --set train.epochs=none --set train.steps=120 --set train.evaluate_every=20
    --set data.dataset=shop

Beside its text every item gets a vector of its own, zero at the start, for what users do that texts cannot say; so it
begins as text neighbours. `--set train.start_from=runs/recgpt_pretrain` begins at what recgpt_pretrain has learned
beyond the encoder, which was no better here; `--set model.own_width=0` knows items by their texts alone.

Expected:  ndcg@10 0.0637 (test split, leave-one-out, full ranking, history masked); 0.0546 from a tenth of the users
Time:      7 minutes, after 9 for the encoder on 2 CPU cores
Hardware:  1 CPU core
"""

from dataclasses import replace
from typing import Any

from recjax import recipes
from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    pretrained = recipes.read("recgpt_pretrain").config
    view = pretrained.data.view
    return replace(
        pretrained,
        name="recgpt_finetune_beauty",
        data=Data("amazon-beauty-2014", view=view, rows=64),
        # All predictions of a row, against a few hundred items: each epoch has as many targets as SASRec's. Without
        # background: it takes the gradient from targets that texts do not explain, which own vectors are for.
        model=replace(
            pretrained.model, own_width=128, positions=view.max_length, negatives=512, dropout=0.2, background=1.0
        ),
        optim=AdamW(learning_rate=1e-3, weight_decay=0.01, clip=1.0, warmup_steps=20, schedule="cosine", hold=0.5),
        train=Train(epochs=7, evaluate_every=44, ema=0.98, validation_users=4096),
    )


def tiny() -> dict[str, Any]:
    settings = recipes.read("recgpt_pretrain").module.tiny()
    del settings["data.datasets"]  # one catalog here
    return settings

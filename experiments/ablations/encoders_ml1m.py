"""recjax ablate encoders_ml1m --seeds 3

Attention, state spaces, linear recurrences and their mixtures on MovieLens-1M: the same embeddings, norms, loss,
batches and budget, and as many parameters in each encoder (the feed-forward width makes up for what a mixer has more
or less).
Convolutional state spaces (S4, S4D) cannot keep the histories of a packed row apart, so theirs have a row each.

Expected:  ndcg@10 attention 0.1510, mamba-2 0.1678 (one seed; tables in experiments/ablations/README.md)
Time:      5 to 9 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem, matched_settings
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

ENCODERS = {
    "attention": "attention",
    "attention-rotary": "attention(positions=rotary)",
    "hstu": "hstu(times=false)",  # like the others it knows order alone
    "lru": "lru",
    "s5": "s5",
    "rg-lru": "rg_lru",
    "s4d": "s4d",
    "s4": "s4",
    "mamba-2": "mamba2",
    "gla": "gla",
    "retention": "retention",
    "lightnet": "lightnet",
    "lru+attention": "lru, attention",
    "rg-lru+attention": "rg_lru, attention",
    "lightnet+attention": "lightnet, attention",
}
ROWS_OF_ONE = ("s4", "s4d")


def model(length: int, **settings: object) -> NextItem:
    return NextItem(width=64, layers=2, heads=2, dropout=0.2, max_length=length, loss=FullSoftmax(), **settings)  # pyright: ignore[reportArgumentType]


def config(length: int = 200) -> RunConfig:
    return RunConfig(
        name="encoders_ml1m",
        data=Data("ml-1m", view=Shifted(max_length=length), rows=32),
        model=model(length),
        # State spaces learn their time scales at half the rate and without decay, as their authors do.
        optim=AdamW(
            learning_rate=3e-3,
            weight_decay=0.01,
            ssm_rate=0.5,
            clip=5.0,
            warmup_steps=100,
            schedule="cosine",
            hold=0.4,
        ),
        mesh=MeshShape(),
        # An equal budget for all, at whose end the rate is zero; `--set train.epochs=40` is what the best recipes take.
        train=Train(epochs=8, evaluate_every=204, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep(length: int = 200) -> dict[str, dict[str, str]]:
    like = model(length)
    cells = {}
    for name, pattern in ENCODERS.items():
        cells[name] = matched_settings(pattern, like)
        if any(mixer in pattern.split(", ") for mixer in ROWS_OF_ONE):
            cells[name] |= {"data.pack": "false", "data.rows": "64"}
    return cells

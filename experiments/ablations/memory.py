"""recjax ablate memory --seeds 2

What a mixer can remember, where it is known: symbols scattered among blanks, to be repeated in order after a signal
(selective copying; Gu & Dao 2023). hr@1 is the accuracy of the last symbol. With `--set data.dataset=copy` the symbols
stand together and the lag is fixed, which a convolution can learn. `listops` is the same for nested expressions.

Expected:  hr@1 attention 1, lightnet 0.9958, lru 0.9233, mamba-2 0.3658 (one seed;
           tables in experiments/ablations/README.md)
Time:      3 to 9 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.splits import ByUser
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

ENCODERS = {
    "attention": "attention(positions=rotary)",
    "lru": "lru",
    "s5": "s5",
    "s4d": "s4d",
    "rg-lru": "rg_lru",
    "mamba-2": "mamba2",
    "gla": "gla",
    "lightnet": "lightnet",
    "retention": "retention",
}


def config() -> RunConfig:
    length = 81
    return RunConfig(
        name="memory",
        data=Data("selective-copy", view=Shifted(max_length=length, targets=8), split=ByUser(), rows=64, pack=False),
        model=NextItem(width=64, layers=2, heads=2, dropout=0.0, max_length=length),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, ssm_rate=0.5, clip=1.0, warmup_steps=100, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=1_500, evaluate_every=250, metric="hr@1", validation_users=500),
        evaluate=Evaluate(mask_seen="none"),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    return {name: {"model.mixer": pattern} for name, pattern in ENCODERS.items()}

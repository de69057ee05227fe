"""recjax ablate encoders_beauty --seeds 3

The encoders of `encoders_ml1m` on amazon-beauty-2014, whose histories are short: does what moves information along
time matter where there is little time?

Expected:  ndcg@10 attention 0.0455, rg-lru 0.0513 (one seed; tables in experiments/ablations/README.md)
Time:      2 to 7 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem, matched_settings
from recjax.models.parts.objectives import SampledSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

LENGTH = 50
ENCODERS = {
    "attention": "attention",
    "attention-rotary": "attention(positions=rotary)",
    "lru": "lru",
    "s5": "s5",
    "rg-lru": "rg_lru",
    "rg-lru-without-convolution": "rg_lru(kernel=1)",
    "mamba-2": "mamba2",
    "gla": "gla",
    "lightnet": "lightnet",
    "lru+attention": "lru, attention",
    "rg-lru+attention": "rg_lru, attention",
}


def model(mixer: str = "attention") -> NextItem:
    return NextItem(
        mixer=mixer, width=128, layers=2, heads=2, dropout=0.2, max_length=LENGTH, loss=SampledSoftmax(negatives=256)
    )


def config() -> RunConfig:
    return RunConfig(
        name="encoders_beauty",
        data=Data("amazon-beauty-2014", view=Shifted(max_length=LENGTH), rows=128),
        model=model(),
        optim=AdamW(
            learning_rate=3e-3,
            weight_decay=0.01,
            ssm_rate=0.5,
            clip=5.0,
            warmup_steps=40,
            schedule="cosine",
            hold=0.4,
        ),
        mesh=MeshShape(),
        # An equal budget for all, at whose end the rate is zero: twelve passes over the data.
        train=Train(steps=320, evaluate_every=40, validation_users=4096, ema=0.98),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    like = model()
    return {name: matched_settings(mixer, like) for name, mixer in ENCODERS.items()}

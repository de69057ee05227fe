"""recjax ablate attention_share --seeds 3

How much attention does a recurrent encoder need, and where? Four blocks of an LRU on MovieLens-1M in which none, one,
two or all are attention. In language models a quarter is enough (Glorioso et al. 2024; De et al. 2024).

Expected:  ndcg@10 0.1556 to 0.1623, no difference shown (one seed;
           tables in experiments/ablations/README.md)
Time:      6 to 8 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem, matched_settings
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

LENGTH = 200
ATTENTION = "attention(positions=rotary)"
PATTERNS = {
    "all-attention": ATTENTION,
    "no-attention": "lru",
    "first": f"{ATTENTION}, lru*3",
    "third": f"lru*2, {ATTENTION}, lru",
    "last": f"lru*3, {ATTENTION}",
    "every-other": f"lru, {ATTENTION}",
}


def model(mixer: str = ATTENTION) -> NextItem:
    return NextItem(mixer=mixer, width=64, layers=4, heads=2, dropout=0.2, max_length=LENGTH)


def config() -> RunConfig:
    return RunConfig(
        name="attention_share",
        data=Data("ml-1m", view=Shifted(max_length=LENGTH), rows=32),
        model=model(),
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


def sweep() -> dict[str, dict[str, str]]:
    like = model()
    return {name: matched_settings(mixer, like) for name, mixer in PATTERNS.items()}

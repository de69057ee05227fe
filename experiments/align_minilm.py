"""recjax align align_minilm

The sentence encoder all-MiniLM-L6-v2, its last three blocks trained on pairs of items that users of three Amazon
catalogs had within three events of each other; for `recgpt_pretrain`, which reads it from runs/align_minilm/encoder.

    RECJAX_ENCODERS=FOLDER recjax align align_minilm

FOLDER holds the encoder's folder as Hugging Face keeps it. The checkpoint is chosen by text neighbours on a catalog
that is not trained on (amazon-toys-2014); amazon-beauty-2014 is in neither.

Expected:  ndcg@10 of whitened text neighbours (titles) on the validation targets of amazon-toys-2014 0.0589 -> 0.0600
Time:      9 minutes
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.mixture import Mixture
from recjax.evaluate.protocol import Evaluate
from recjax.models.alignment import Alignment
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    return RunConfig(
        name="align_minilm",
        data=Mixture(
            datasets=("amazon-health-2014", "amazon-clothing-2014", "amazon-books-2014"),
            held_out="amazon-toys-2014",
            rows=128,
        ),
        model=Alignment("all-MiniLM-L6-v2"),
        optim=Adam(learning_rate=4e-5, b2=0.999, warmup_steps=20, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=100, validation_users=4096),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.layers": 1}

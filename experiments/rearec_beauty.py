"""recjax train rearec_beauty

ReaRec on Amazon Beauty (2014, 5-core): every prefix as a sample with one target, and two latent steps after each
history, trained to differ and scored by their mean ("erl"). `--set model.way=prl` trains each step towards the target,
`--set model.steps=0` is the same encoder without steps.

Expected:  not run to its end. After 100 steps of 256 prefixes, a fiftieth of the whole (`--set data.rows=256
           --set train.steps=100 --set train.epochs=none --set train.evaluate_every=100
           --set train.validation_users=2000 --set optim.learning_rate=4e-3 --set model.dropout=0.2`), ndcg@10 0.0067 on
           2,000 validation users, and 0.0076 without steps: too early to tell them apart
Time:      2 min 25 s for these steps, 1 min 13 s without latent steps, on a core shared with other work
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.rearec import ReaRec
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 20
    return RunConfig(
        name="rearec_beauty",
        data=Data(
            "amazon-beauty-2014",
            view=Prefixes(Shifted(max_length=length, align="left", targets=1)),
            rows=512,
            pack=False,
        ),
        model=ReaRec(
            width=64, layers=2, heads=2, norm="post", input_norm=True, dropout=0.5, max_length=length, steps=2
        ),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=15, evaluate_every=257, validation_users=5000, patience=8),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"data.view.view.max_length": 12, "model.width": 8, "model.layers": 1, "model.max_length": 14}

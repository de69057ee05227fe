"""recjax train rearec_beauty

ReaRec on Amazon Beauty (2014, 5-core): every prefix as a sample with one target, and two latent steps after each
history, trained to differ and scored by their mean ("erl"). `--set model.way=prl` trains each step towards the target,
`--set model.steps=0` is the same encoder without steps.

Expected:  ndcg@10 0.0251 [0.0235, 0.0268], hr@10 0.0485 (test split, leave-one-out, full ranking, history masked) after
           the 1,000 steps, four passes, of a two-core budget. Without latent steps, at equal size, schedule and data,
           0.0307 [0.0288, 0.0325], 0.0565: the steps cost 0.0056 +- 0.0006, paired over users, one seed, so the paper's
           claim is refuted at this budget; progressive steps ("prl") reach 0.0194 [0.0181, 0.0209], 0.0387, and cost
           0.0113 +- 0.0007. All are far below SASRec on all positions (0.0542), which sees six times
           as many targets a step, and below the floor text_transition (0.0686)
Time:      34 minutes, 10 without latent steps, on one core shared with other work; 2,048 users are ranked in 0.21 s,
           and in 0.14 s without latent steps (median of five, by turns, two idle cores)
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
            width=64, layers=2, heads=2, norm="post", input_norm=True, dropout=0.3, max_length=length, steps=2
        ),
        # Rate and dropout are for the short budget; the passes of a longer one: --set train.steps=3850.
        optim=Adam(learning_rate=3e-3),
        mesh=MeshShape(),
        train=Train(steps=1000, evaluate_every=250, validation_users=2000),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"data.view.view.max_length": 12, "model.width": 8, "model.layers": 1, "model.max_length": 14}

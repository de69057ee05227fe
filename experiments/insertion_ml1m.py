"""recjax train insertion_ml1m

Insertion language model (Patel et al., 2025) on MovieLens-1M: stretches of up to 50 events of which a drawn number is
dropped, to be inserted again one at a time. Held-out users lack a fifth of the middle events of a stretch: which ones,
and where? The controls:

    --set model.sides=left            a next-item model of the same size and training, that knows the left side alone
    the group `left` of its report    the same network, asked with the events before a gap alone

Expected:  not trained on ml-1m. On ml-100k, a quarter of the users (236) held out, 800 steps, one seed: hr@10 of the
           events left out 0.1745 [0.1480, 0.2045]; the same network asked from the left alone 0.1433, one trained from
           the left alone 0.1568: what both sides gain is not shown, +0.0178 ± 0.0247, paired over users. Counts of
           transitions from both sides have 0.2217, from the left 0.1546. Where something is missing is not found:
           gap_accuracy 0.2712 [0.2161, 0.3263], asked from the left 0.3008, trained from the left 0.2712, counts from
           the left 0.2712, chance 0.2299. Nor whether: stop_error 0.4661 [0.4025, 0.5297], chance 0.5. There
           --set data.dataset=ml-100k --set data.split.test=0.25 --set train.steps=800 --set train.evaluate_every=200
Time:      4 minutes of one core for the 800 steps (11 on a core shared with much other work)
Hardware:  1 core of an AMD EPYC that other work shared
"""

from recjax.config import RunConfig
from recjax.data.batches.insertions import Insertions
from recjax.data.batches.loader import Data
from recjax.data.splits import ByUser
from recjax.evaluate.infilling import Infilling
from recjax.evaluate.protocol import Evaluate
from recjax.models.insertion import Insertion
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    length = 51
    return RunConfig(
        name="insertion_ml1m",
        data=Data("ml-1m", view=Insertions(max_length=length), split=ByUser(), rows=32),
        model=Insertion(width=64, layers=2, heads=2, inner=128, dropout=0.1, max_length=length),
        optim=AdamW(learning_rate=3e-3, weight_decay=0.01, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.5),
        mesh=MeshShape(),
        train=Train(steps=6000, evaluate_every=1000, validation_users=None, ema=0.99),
        evaluate=(Infilling(), Evaluate()),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12, "model.inner": 16}

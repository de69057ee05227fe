"""recjax train insertion_ml1m

Insertion language model (Patel et al., 2025) on MovieLens-1M: stretches of up to 50 events of which a drawn number is
dropped, to be inserted again one at a time. Held-out users lack a fifth of the middle events of a stretch: which ones,
and where? The controls:

    --set model.sides=left            a next-item model of the same size and training, that knows the left side alone
    the group `left` of its report    the same network, asked with the events before a gap alone

Expected:  604 held-out users, one seed, of the events left out: hr@10 0.2924 [0.2690, 0.3160], ndcg@10 0.1632; trained
           from the left alone 0.2436, 0.1314: +0.0317 [0.0218, 0.0417] of ndcg@10, paired over users; the same network
           asked from the left alone 0.2472. Counts of transitions from both sides have 0.2965, 0.1684, which is not
           shown to differ (-0.0052 [-0.0154, 0.0050]), from the left 0.2421. Where something is missing is hardly
           found: gap_accuracy 0.2715 [0.2384, 0.3030], 0.2252 trained from the left, counts from the left 0.2881,
           chance 0.2229. Whether: stop_error 0.3858 [0.3444, 0.4255], chance 0.5, counts 0.3924. The next item: ndcg@10
           0.1301, transition counts 0.1325, text_transition 0.1391. On ml-100k after 800 steps (236 users) hr@10
           0.1745, trained from the left 0.1568, counts from both sides 0.2217
Time:      13 minutes (sides=left; 38 with a fifth of a core)
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

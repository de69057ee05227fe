"""recjax train bert4rec_ml1m

BERT4Rec on MovieLens-1M (Sun et al., CIKM 2019), trained as long as it needs: three items in ten masked and, one pass
in eleven, only the last one. Pre-norm blocks, as in RecTools: the paper's post-norm stays at the loss of a popularity
model for tens of epochs. Well-trained replications reach 0.152 to 0.162 (Petrov & Macdonald, RecSys 2022).

Expected:  ndcg@10 0.1567 (test split, leave-one-out, full ranking, history masked)
Time:      about 50 minutes
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Cloze
from recjax.evaluate.protocol import Evaluate
from recjax.models.bert4rec import BERT4Rec
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="bert4rec_ml1m",
        data=Data("ml-1m", view=Cloze(max_length=length, mask_prob=0.3), rows=32),
        model=BERT4Rec(
            width=64, layers=2, heads=2, inner=256, dropout=0.1, max_length=length, norm="pre", loss=FullSoftmax()
        ),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, clip=5.0, warmup_steps=300, schedule="cosine", hold=0.4),
        mesh=MeshShape(),
        train=Train(epochs=90, evaluate_every=306, validation_users=2048, ema=0.999),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}

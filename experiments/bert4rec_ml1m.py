"""recjax train bert4rec_ml1m

BERT4Rec on MovieLens-1M (Sun et al., CIKM 2019), trained as long as it needs: a fifth of the items masked and, one
pass in eleven, only the last one. Well-trained replications reach 0.152 to 0.162 (Petrov & Macdonald, RecSys 2022).

Expected:  ndcg@10 pending (test split, leave-one-out, full ranking, history masked)
Time:      pending
Hardware:  pending
"""

from recjax.config import RunConfig
from recjax.data.loader import Data
from recjax.data.views import Cloze
from recjax.evaluate.protocol import Evaluate
from recjax.models.bert4rec import BERT4Rec
from recjax.models.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="bert4rec_ml1m",
        data=Data("ml-1m", view=Cloze(max_length=length, mask_prob=0.2), rows=64),
        model=BERT4Rec(width=64, layers=2, heads=2, inner=256, dropout=0.2, max_length=length, loss=FullSoftmax()),
        optim=AdamW(learning_rate=1e-3, weight_decay=0.01, clip=5.0),
        mesh=MeshShape(),
        train=Train(epochs=200, patience=20),
        evaluate=Evaluate(),
    )

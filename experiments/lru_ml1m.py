"""recjax train lru_ml1m

The linear recurrent unit on MovieLens-1M under full cross-entropy, as LRURec has it (Yue et al., WSDM 2024): two
blocks with the normalisation after the residual sum, no positions, eigenvalues that begin between 0.8 and 0.99. Their
own figure, 0.1930, is for another order of events with the same time stamp and cannot be compared.

Expected:  ndcg@10 0.1841 (test split, leave-one-out, full ranking, history masked)
Time:      39 minutes, on cores shared with other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="lru_ml1m",
        # 64 packed rows hold about as many events as 128 users of this dataset.
        data=Data("ml-1m", view=Shifted(max_length=length), rows=64),
        model=NextItem(
            mixer="lru(r_min=0.8; r_max=0.99; skip=false)",
            width=64,
            layers=2,
            norm="post",
            dropout=0.2,
            max_length=length,
            input_norm=True,
            bias=True,
            loss=FullSoftmax(),
        ),
        optim=AdamW(
            learning_rate=2e-3, ssm_rate=0.5, weight_decay=1e-2, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.4
        ),
        mesh=MeshShape(),
        train=Train(epochs=40, evaluate_every=154, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}

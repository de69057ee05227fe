"""recjax train pisa_tafeng

Header to be written.
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import NextSession
from recjax.data.features.relations import SessionCoOccurrence
from recjax.data.target_sets import LastBasket
from recjax.evaluate.rank_sets import RankSets
from recjax.models.parts.objectives import SampledSoftmax
from recjax.models.pisa import PISA
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 128
    return RunConfig(
        name="pisa_tafeng",
        data=Data("tafeng", view=NextSession(max_length=length), split=LastBasket(), rows=64),
        items={"sessions": SessionCoOccurrence(count=50)},
        model=PISA(
            width=256,
            layers=1,
            inner=128,
            dropout=0.2,
            max_length=length,
            bias=True,
            # A customer's counts say more than how long ago things were bought: of the floors personal_top leads.
            decay=0.1,
            loss=SampledSoftmax(negatives=256, share="batch", log_q=True),
            long=2.0,
            forget=0.5,
            ahead=0.8,
            temper=12.0,
        ),
        optim=Adam(learning_rate=3e-3, warmup_steps=20, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=220, evaluate_every=110, validation_users=2000),
        evaluate=RankSets(),
    )


def tiny() -> dict[str, int]:
    return {"data.view.max_length": 12, "model.width": 8, "model.layers": 1, "model.max_length": 12}

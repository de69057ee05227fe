"""recjax train idnp_ml1m

IDNP (Du et al., WSDM 2023) on MovieLens-1M: interests as functions of time from the last 20 events, leave-one-out. The
paper's sizes are not published, these are ours. The controls:

    --set model.divergence=0    without the latent function and its divergence
    --set model.process=false   its convolutions alone

Expected:  not run to its end on ml-1m. On ml-100k after 300 steps, one seed (test split, leave-one-out, full ranking,
           history masked), the process is refuted: ndcg@10 0.0454, 0.0350 [0.0219, 0.0480] below its convolutions
           alone (0.0804), which train on every event where it trains on those behind a cut; 0.0478 without the
           latent function. The floor of transitions is 0.1063, popularity 0.0449. There `--set data.dataset=ml-100k
           --set train.epochs=none --set train.steps=300 --set train.evaluate_every=0 --set train.patience=none --set
           data.rows=64 --set optim.learning_rate=3e-3`
Time:      4 to 5 minutes for the 300 steps, on a core shared with other work; the whole not measured
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.derived import Windows
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.idnp import IDNP
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    view = Windows(Shifted(max_length=20, times=True), step=10)
    return RunConfig(
        name="idnp_ml1m",
        data=Data("ml-1m", view=view, rows=256, pack=False),
        model=IDNP(width=64, heads=4),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=30, evaluate_every=382, validation_users=2000, patience=6),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "data.view.view.max_length": 12}

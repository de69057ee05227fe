"""recjax train llm4dsr_toys

LLM4DSR (Wang et al., TOIS 2025) on Amazon Toys (2014, 5-core), of whose training events one in ten is replaced by
another item: which ones? A small encoder of items and hashed titles stands in for the paper's language model. What it
finds is rewritten for any other model: `recjax.load("runs/llm4dsr_toys").rewritten()`. The controls:

    --set model.detection=0           without the head that says what was replaced
    --set data.split.alike=categories replaced by items of the same categories
    --set data.split.share=0.2        twice the noise

Expected:  not run to its end. After 300 steps, one seed, without hard noise in training, its doubts find the replaced
           ones of all 126,999 training events with auc 0.7616; counts on the same events: how few other users have the
           item with those beside it 0.7137, rarity 0.7004. Its corrections restore 0.15 % of them: the item itself is
           not learned in so few steps (ndcg@10 0.0090 [0.0079, 0.0100], floor 0.0729). There `--set train.epochs=none
           --set train.steps=300 --set model.hard=0`. What the rewritten data are worth to another model has not been
           measured, nor hard noise, nor the controls
Time:      2 minutes of one core for the 300 steps (an hour on a core shared with much other work)
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Cloze
from recjax.data.features.relations import Neighbours
from recjax.data.noise import Noisy
from recjax.evaluate.denoising import Denoising
from recjax.evaluate.protocol import Evaluate
from recjax.models.llm4dsr import LLM4DSR
from recjax.models.parts.objectives import SampledSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 20
    return RunConfig(
        name="llm4dsr_toys",
        data=Data("amazon-toys-2014", view=Cloze(length, mask_prob=0.4, last_copy=False), split=Noisy(), rows=256),
        text=TextSpace((Channel(Hashed(64)),)),
        items={"alike": Neighbours(count=20)},
        model=LLM4DSR(
            width=64,
            layers=2,
            heads=2,
            norm="pre",
            dropout=0.2,
            inner=128,
            max_length=length,
            hard=0.5,
            loss=SampledSoftmax(negatives=256),
        ),
        optim=Adam(learning_rate=3e-3),
        mesh=MeshShape(),
        train=Train(epochs=20, evaluate_every=100, validation_users=2000),
        evaluate=(Evaluate(), Denoising()),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12, "model.inner": 16}

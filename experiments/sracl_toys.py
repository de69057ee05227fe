"""recjax train sracl_toys

SRA-CL on Amazon Toys (2014, 5-core): every prefix a sample, contrasted with a copy in which items are replaced by
neighbours of their texts, and with the nearest prefixes of other users by what their items' texts mean. Texts are word
sketches of title and category, in place of those that a language model wrote. The controls:

    --set model.neighbourhood=random --set items.neighbours=Drawn
    --set model.inter=0 --set model.intra=0

Expected:  not run to its end. After four epochs (`--set train.epochs=4`, commit 029dad47) ndcg@10 0.0164 [0.0149,
           0.0177] on the test split, leave-one-out, full ranking, history masked, below the floor `text_transition`,
           0.0793; the controls have not been run so far
Time:      13 minutes for the four epochs
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.alterations import Substitute
from recjax.data.batches.derived import Prefixes, Users
from recjax.data.batches.loader import Data
from recjax.data.batches.partners import AlteredCopy, Partnered
from recjax.data.batches.views import Shifted
from recjax.data.features.relations import Neighbours
from recjax.evaluate.protocol import Evaluate
from recjax.models.sracl import SRACL
from recjax.parallel.mesh import MeshShape
from recjax.text.sketch import Sketch
from recjax.text.space import Channel, TextSpace
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length, copy = 20, AlteredCopy((Substitute(share=0.2),))
    samples = Users(Prefixes(Shifted(length, targets=1)))
    return RunConfig(
        name="sracl_toys",
        data=Data(
            "amazon-toys-2014", view=Partnered(Partnered(samples, copy, "first"), copy, "second"), rows=256, pack=False
        ),
        text=TextSpace((Channel(Sketch(256, template="{title} {categories}"), whiten=False),)),
        items={"neighbours": Neighbours(count=10)},
        model=SRACL(width=64, layers=2, heads=2, dropout=0.5, max_length=length, inter=0.1, intra=0.1),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=20, evaluate_every=425, validation_users=5000, patience=6),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    short = {"data.view.view.view.view.view.max_length": 12, "model.max_length": 12}
    return {**short, "model.width": 8, "model.layers": 1, "model.memory": 16, "items.neighbours.count": 3}

"""recjax train recgpt_pretrain

RecGPT on several catalogs, to recommend from others that it has never seen:

    RECJAX_ENCODERS=FOLDER recjax align align_minilm
    RECJAX_ENCODERS=FOLDER recjax train recgpt_pretrain
    RECJAX_ENCODERS=FOLDER recjax evaluate runs/recgpt_pretrain --data amazon-beauty-2014

FOLDER holds the folder of the sentence encoder all-MiniLM-L6-v2 as Hugging Face keeps it; the first line trains it on
what users have one after another. Items are compared by meaning (with and without their categories) and by their
words. The checkpoint is chosen on a catalog that is not trained on, and amazon-beauty-2014 is in neither.

Expected:  ndcg@10 0.0522 on amazon-beauty-2014 (test split, leave-one-out, full ranking, history masked)
Time:      3 minutes on 1 core, after 9 for the encoder and 5 for the vectors of all texts on 2
Hardware:  2 CPU cores
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.mixture import Mixture
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.recgpt import RecGPT
from recjax.parallel.mesh import MeshShape
from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.sketch import Sketch
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def space(encoder: str = "runs/align_minilm/encoder") -> TextSpace:
    """Meaning of title and categories, of the title alone, its words, and its first two words (mostly the brand)."""
    return TextSpace(
        (
            Channel(SentenceEncoder(encoder, template="{title}. {categories}"), 0.5),
            Channel(SentenceEncoder(encoder, template="{title}"), 0.5),
            Channel(Sketch(512), 0.5, whiten=False),
            Channel(Sketch(128, leading=2), 0.2, whiten=False),
        )
    )


def config() -> RunConfig:
    length = 32
    return RunConfig(
        name="recgpt_pretrain",
        data=Mixture(
            datasets=(
                "amazon-health-2014",
                "amazon-clothing-2014",
                "amazon-books-2014",
                "ml-1m",
                "lastfm",
                "online-retail",
            ),
            held_out="amazon-toys-2014",
            view=Shifted(max_length=length),
            rows=64,
        ),
        text=space(),
        tokenizer=FSQ(levels=(4, 4, 4), steps=300),
        # All predictions of a row, against some of the items: a step then says more than eight of 4 predictions a row.
        model=RecGPT(width=128, layers=2, heads=4, dropout=0.1, decay=0.65, positions=length, negatives=2048),
        optim=AdamW(learning_rate=5e-4, weight_decay=0.01, clip=1.0, warmup_steps=20, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=100, evaluate_every=25, validation_users=4096),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.datasets": ("amazon-health-2014", "amazon-clothing-2014"),
        "data.view.max_length": 12,
        "text": TextSpace((Channel(Hashed(32)),)),
        "tokenizer.steps": 3,
        "tokenizer.layers": 1,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
    }

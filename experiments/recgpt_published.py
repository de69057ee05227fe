"""recjax train recgpt_published

RecGPT's network as published (Jiang et al., EMNLP 2025), from scratch on the catalogs of recgpt_pretrain: GPT-2 of 3
layers over four FSQ codes an item, and nothing else; the yardstick for recgpt_pretrain.

    RECJAX_ENCODERS=FOLDER recjax train recgpt_published
    RECJAX_ENCODERS=FOLDER recjax evaluate runs/recgpt_published --data amazon-beauty-2014

FOLDER holds the folder of the sentence encoder, all-MiniLM-L6-v2 unless `space` is told otherwise; the published one is
all-mpnet-base-v2, whose vectors have 768 coordinates, so 192 to a code. Unlike the published tokenizer, this one
whitens its input and gives every item codes of its own: without that nearly all items share one tuple. The weights as
published are another matter: see `recjax import-recgpt --help`.

Expected:  not trained at this width; at a sixth of it (experiments/README.md) ndcg@10 0.0004 on amazon-beauty-2014
Time:      100 s a step
Hardware:  1 CPU core
"""

from dataclasses import replace
from typing import Any

from recjax import recipes
from recjax.config import RunConfig
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.recgpt_published import RecGPTPublished
from recjax.parallel.mesh import MeshShape
from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

SLOTS = 4


def space(encoder: str = "all-MiniLM-L6-v2") -> TextSpace:
    """Vectors of title, description and categories, as they are."""
    template = "{title}. {description}. {categories}"
    return TextSpace((Channel(SentenceEncoder(encoder, template=template), whiten=False),))


def config(encoder: str = "all-MiniLM-L6-v2", width: int = 384) -> RunConfig:
    """The recipe, for an encoder whose vectors have `width` coordinates."""
    length = 256
    return RunConfig(
        name="recgpt_published",
        data=replace(
            recipes.read("recgpt_pretrain").config.data, view=Shifted(max_length=length, align="left"), rows=40
        ),
        text=space(encoder),
        tokenizer=FSQ(slots=SLOTS, levels=(8, 8, 8, 6, 5)),
        model=RecGPTPublished(width=768, layers=3, heads=12, slots=SLOTS, aux_width=width // SLOTS, max_items=length),
        optim=AdamW(learning_rate=1e-4, b2=0.999, weight_decay=0.01),
        mesh=MeshShape(),
        train=Train(steps=5_000, evaluate_every=500, validation_users=4096),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.datasets": ("amazon-health-2014", "amazon-clothing-2014"),
        "data.view.max_length": 12,
        "text": TextSpace((Channel(Hashed(32), whiten=False),)),
        "tokenizer.steps": 3,
        "tokenizer.layers": 1,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.aux_width": 8,
        "model.max_items": 12,
    }

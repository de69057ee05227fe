"""recjax train text_lm_toys

A small language model for systems that are made of one, where none is at hand: a Llama-like decoder of four layers, 128
wide, learns from titles and categories of Amazon Toys (2014, 5-core) in the order in which users had the items. Its
tokenizer is fitted to them. The run leaves a folder as Hugging Face writes it, which serves wherever one is named:

    recjax train text_lm_toys --run runs/toys-lm
    recjax train ... --set model.weights=runs/toys-lm/language-model

`--set model.weights=FOLDER --set items.tokens.folder=FOLDER`, with the sizes of its blocks in `model.base`, goes on
from a language model, and with `--set model.trained=adapters` trains adapters alone.

Expected:  of the test items' texts after their histories perplexity 8.96 (-2.192 [-2.244, -2.142] nats a token, 2,000
           users), 9.47 without: a history is worth 0.055 [0.051, 0.060] nats a token. Tokens are its own tokenizer's,
           21.7 an item, so other models' figures do not compare. Means of its states, which nothing trains to rank,
           have ndcg@10 0.0447 [0.0423, 0.0471] (0.0388 after six steps; `text_knn` 0.0542, by TF-IDF of the last
           events); `text_transition` has 0.0793. SmolLM2 has 20.9 and 366 (200 users), and 9.82 and 21.6 after 40 steps
           of its adapters on four rows of 256 tokens (9 minutes; its own tokens)
Time:      19 minutes for 300 steps, two passes
Hardware:  1 CPU core (AMD EPYC) that other work shared
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.tokens import Tokens
from recjax.evaluate.perplexity import Perplexity
from recjax.models.text_lm import TextLM
from recjax.parallel.mesh import MeshShape
from recjax.text.lm.config import DecoderConfig
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    sizes = DecoderConfig(vocabulary=0, width=128, layers=4, heads=4, kv_heads=4, channels=32, inner=344)
    return RunConfig(
        name="text_lm_toys",
        data=Data("amazon-toys-2014", view=Shifted(max_length=20), rows=32),
        items={"tokens": Tokens("{title}. {categories}", count=32, vocabulary=4096, end="\n")},
        model=TextLM(sizes, room=512),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=300, evaluate_every=100, validation_users=500, metric="likelihood"),
        evaluate=Perplexity(users=2000),
    )


def tiny() -> dict[str, int]:
    sizes = {"width": 8, "layers": 1, "heads": 2, "kv_heads": 2, "channels": 4, "inner": 16}
    small = {"items.tokens.vocabulary": 300, "items.tokens.count": 8, "model.room": 32, "data.view.max_length": 12}
    return {**small, **{f"model.base.{name}": value for name, value in sizes.items()}}

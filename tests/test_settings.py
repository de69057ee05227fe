"""Every setting of every shipped recipe: a value is taken because it means something, or refused in one line."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from recjax import recipes
from recjax.config import RunConfig, from_json, keys, override, override_all, to_json
from recjax.data.batches.alterations import Crop
from recjax.data.batches.denoising import Corrupted
from recjax.data.batches.derived import Prefixes, Windows
from recjax.data.batches.partners import AlteredCopy, Partnered
from recjax.data.batches.views import Batch
from recjax.data.features.columns import Attribute, VectorFile, Words
from recjax.data.features.relations import CoOccurrence, Drawn, Neighbours, Transitions
from recjax.data.items import bare_items
from recjax.data.splits import ByUser, GlobalTime
from recjax.data.target_sets import LastBasket, RandomSplit, Sessions
from recjax.evaluate.conformal import PredictionSets
from recjax.evaluate.questions import Asking
from recjax.mixers import MIXERS
from recjax.mixers.mixer import SeqContext
from recjax.mixers.parts.axes import Axis
from recjax.mixers.stack import Encoder, Stack
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE, BPR, Negatives
from recjax.parallel.mesh import MeshShape
from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.lm.t5 import T5Config
from recjax.text.sketch import Sketch
from recjax.text.space import Channel
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.tokenizers.rq_vae import RQVAE
from recjax.train.pretrain import Pretrain
from recjax.train.stages import Stage
from recjax.typing import InputError

RECIPES = [name for name in recipes.names() if not name.startswith("_")]
VALUES = (
    "-1",
    "0",
    "0.5",
    "2",
    "1e9",
    "1e30",
    "1" * 400,
    "nan",
    "-inf",
    "",
    "none",
    "true",
    "odd",
    "\0",
    "../odd",
    "1,2",
)
ITEMS = 50
LOSSES: set[Any] = set()
"""Those that have been traced: it takes most of the time."""


@cache
def config_of(recipe: str) -> RunConfig:
    """The recipe's, with one layer: each would be traced by itself."""
    config = recipes.read(recipe).config
    return override(config, "model.layers", "1") if hasattr(config.model, "layers") else config


def inside(config: Any, names: list[str]) -> Any:
    for name in names:
        if isinstance(config, tuple | dict):
            config = config[int(name) if isinstance(config, tuple) else name]
        else:
            config = getattr(config, name)
    return config


def owners(config: Any, key: str) -> tuple[type, str]:
    """The class that has the setting, and its name there."""
    *parents, name = key.split(".")
    return type(inside(config, parents)), name


def taken(config: Any, key: str) -> list[Any]:
    """Changed configurations, of each type of value the first and the last: those between build alike."""
    found: dict[type, list[Any]] = {}
    for text in VALUES:
        try:
            changed = override(config, key, text)
        except InputError as error:
            one_line(error)
        else:
            if changed != config:
                found.setdefault(type(inside(changed, key.split("."))), []).append(changed)
    return [changed for same in found.values() for changed in same[:: max(1, len(same) - 1)]]


def cases() -> Iterator[tuple[str, str]]:
    """A recipe and a key for each setting that some recipe has: the same field of the same class counts once."""
    seen = set()
    for recipe in RECIPES:
        for key, _ in keys(config_of(recipe)):
            place = owners(config_of(recipe), key)
            if place not in seen:
                seen.add(place)
                yield recipe, key


def build(config: RunConfig, part: str) -> None:
    """Objects made of a part of its settings before a run computes: the mesh, the schedule, the model's parameters."""
    if part == "mesh":
        config.mesh.sizes(8)
    if part == "optim":
        config.optim.build(1000, ("items",))
        config.optim.rate(1000)
    if part != "model" or config.text is not None or not config.model.ranks:
        return
    model = config.model.build(ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)))
    zeros = np.zeros((2, 8), np.int32)
    batch = Batch(zeros, zeros, zeros, zeros, zeros.astype(np.float32), zeros)  # pyright: ignore[reportArgumentType]
    items = bare_items(ITEMS)
    params = jax.eval_shape(model.init, jax.random.key(0), batch, items)
    loss = getattr(config.model, "loss", type(config.model))
    if loss not in LOSSES:
        LOSSES.add(loss)
        jax.eval_shape(model.loss, params, batch, items, jax.random.key(0))


def one_line(error: InputError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1000, error


@pytest.mark.parametrize(("recipe", "key"), list(cases()))
def test_a_setting_is_taken_or_refused_in_a_line(recipe: str, key: str):
    for changed in taken(config_of(recipe), key):
        try:
            build(changed, key.split(".")[0])
        except InputError as error:
            one_line(error)


PARTS = [
    *[mixer() for mixer in MIXERS.values()],
    *[Axis(), GlobalTime(), ByUser(), Corrupted(), Pretrain(), Hashed(), Sketch(), SentenceEncoder("odd")],
    *[BCE(), BPR(), Negatives(), Channel(Hashed()), MeshShape()],
    *[Prefixes(), Windows(), Partnered(partner=AlteredCopy()), Crop(), RandomSplit(), Sessions(), Stage("odd")],
    *[Attribute("brand"), Words(), VectorFile("odd", 4), Transitions(), CoOccurrence(), Neighbours(), Drawn()],
    *[PredictionSets(), Asking()],
    *[RQKMeans(), RQVAE(), T5Config(10), LastBasket()],
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_part_that_no_recipe_names_checks_itself(part: Any):
    for key, _ in keys(part):
        for changed in taken(part, key):
            try:
                if isinstance(part, tuple(MIXERS.values())):
                    width, causal = 8, part.capabilities.causal
                    stack = Stack((changed,), 1, width, causal, "pre", 8)
                    x, ones = np.zeros((1, 8, width), np.float32), np.ones((1, 8), np.int32)
                    context = SeqContext(ones, ones, ones)  # pyright: ignore[reportArgumentType]
                    jax.eval_shape(Encoder(stack).init, jax.random.key(0), x, context)
            except InputError as error:
                one_line(error)


MEANINGLESS = [
    ("sasrec_ml1m", "model.dropout=2", "model.dropout is 2.0, expected 0 or more and below 1"),
    ("sasrec_ml1m", "model.layers=1000000000", "model.layers is 1000000000, expected 1 or more and at most 1,024"),
    ("sasrec_ml1m", "model.heads=3", "model.heads is 3, expected a number that divides the width, 64"),
    ("sasrec_ml1m", "model.max_length=50", "data.view.max_length is 200, but the model has positions for 50 events"),
    ("sasrec_ml1m", "model.dtype=float64", "expected one of 'float32', 'bfloat16'"),
    ("sasrec_ml1m", "model.mixer=attention(heads=0)", "attention.heads is 0, expected 1 or more"),
    ("sasrec_ml1m", "optim.eps=-1", "optim.eps is -1.0, expected a number above 0 and at most 1"),
    ("sasrec_ml1m", "optim.b1=1", "optim.b1 is 1.0, expected 0 or more and below 1"),
    ("sasrec_ml1m", "optim.final_share=-5", "optim.final_share is -5.0, expected 0 or more and at most 1"),
    ("sasrec_ml1m", "train.patience=0", "train.patience is 0, expected 1 or more, or none"),
    ("sasrec_ml1m", "evaluate.seed=-1", "evaluate.seed is -1, expected 0 or more"),
    ("sasrec_ml1m", "evaluate.bootstrap=99999999999", "evaluate.bootstrap is 99999999999, expected 0 or more and at"),
    ("sasrec_ml1m", "evaluate.k=1", "evaluate.k is 1, expected 10 or more"),
    ("bert4rec_ml1m", "data.view.mask_prob=1", "data.view.mask_prob is 1.0, expected a number between 0 and 1"),
]


@pytest.mark.parametrize(("recipe", "setting", "message"), MEANINGLESS)
def test_what_would_train_nonsense_is_refused_by_its_key(recipe: str, setting: str, message: str):
    with pytest.raises(InputError) as refused:
        override_all(config_of(recipe), [setting])
    assert message in str(refused.value)


def test_the_chunk_of_a_loss_is_refused_by_its_key():
    config = override_all(config_of("sasrec_ml1m"), ["model.loss=FullSoftmax"])
    with pytest.raises(InputError, match=r"model.loss.chunk_elements is 0, expected 1 or more"):
        override(config, "model.loss.chunk_elements", "0")


def test_json_that_was_changed_by_hand_is_refused_by_its_key():
    tree = to_json(config_of("sasrec_ml1m"))
    tree["model"]["width"] = 0
    with pytest.raises(InputError, match=r"^model.width is 0, expected 1 or more"):
        from_json(tree)
    tree["model"]["width"] = "wide"
    with pytest.raises(InputError, match=r"^model.width is 'wide', expected int"):
        from_json(tree)

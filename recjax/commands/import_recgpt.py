"""The command that imports the published RecGPT."""

from argparse import Namespace
from pathlib import Path

import jax

from recjax.commands.console import plain_console
from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.parts import published_checkpoint
from recjax.parallel.mesh import MeshShape
from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.hub import find_folder
from recjax.text.space import Channel, TextSpace
from recjax.train.catalogs import CODES
from recjax.train.imports import check_free, write_run
from recjax.train.optimiser import AdamW
from recjax.train.schedule import Train
from recjax.train.tokenization import tokenize_catalogs
from recjax.typing import InputError

PUBLISHED_TEXT = "'title': '{title}', 'description': ['{description}'], 'categories': ['{categories}"
"""Item texts as published: the printed dict of an item's fields, braces off."""


def import_recgpt(options: Namespace) -> int:
    """The published PyTorch checkpoints to a run folder."""
    check_free(options.run)
    published = published_checkpoint.import_recgpt(
        options.checkpoint, options.tokenizer, heads=options.heads, levels=_levels(options.levels)
    )
    encoder = _encoder(options.encoder, options.template or PUBLISHED_TEXT)
    _check_width(encoder, options.encoder, published.config.slots, published.config.aux_width)
    config = RunConfig(
        name="recgpt_published",
        data=Data(options.data, Shifted(max_length=published.config.max_items, align="left"), rows=8),
        text=TextSpace((Channel(encoder, whiten=False),)),
        tokenizer=published.tokenizer,
        model=published.config,
        optim=AdamW(learning_rate=1e-4, weight_decay=0.01, b2=0.999),
        mesh=MeshShape(),
        train=Train(steps=1, evaluate_every=0),
        evaluate=Evaluate(),
    )
    published.save_tokenizer(options.run / CODES)
    tokenize_catalogs(config, options.run)[0].tokenized.save(options.run / CODES)
    write_run(options.run, config, published.params)
    count = sum(array.size for array in jax.tree.leaves(published.params))
    plain_console().print(f"{count:,} parameters written to {options.run}", highlight=False, markup=False)
    return 0


def _levels(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--levels {text!r}: expected whole numbers, such as 8,8,8,6,5")
    return tuple(map(int, parts))


def _encoder(name: str, template: str) -> SentenceEncoder | Hashed:
    kind, separator, width = name.partition(":")
    if kind != "hashed" or not separator:
        found = find_folder(name)  # told at once where there is none
        whole = str(found.resolve()) if Path(name).expanduser() == found else name  # a run outlives the directory
        return SentenceEncoder(whole, template=template)
    if not width.isdecimal():
        raise InputError(f"--encoder {name!r}: expected hashed:WIDTH, such as hashed:768")
    return Hashed(int(width), template=template)


def _check_width(encoder: SentenceEncoder | Hashed, name: str, slots: int, width: int) -> None:
    found = encoder.encode(["a text"]).shape[1]
    if found != slots * width:
        raise InputError(
            f"the published model takes item vectors of {slots} x {width} = {slots * width} coordinates, but those of "
            f"encoder {name!r} have {found}"
        )

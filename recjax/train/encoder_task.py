"""Training of a sentence encoder as a task: pairs of texts, validation by text neighbours, and the encoder's folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recjax.config import RunConfig
from recjax.data.batches.loader import open_data
from recjax.data.batches.mixture import MixedLoader, Mixture, joint_identity
from recjax.data.batches.pairs import PairLoader
from recjax.data.dataset import Dataset
from recjax.data.items import bare_items, on_devices
from recjax.evaluate.evaluator import sampled
from recjax.evaluate.floors import TextNeighbours
from recjax.evaluate.host_ranking import rank_scored
from recjax.evaluate.metrics import mean_metrics
from recjax.evaluate.protocol import Evaluate, rules_of
from recjax.models.alignment import Alignment, AlignmentModel
from recjax.models.model import ItemStats
from recjax.parallel.processes import barrier
from recjax.settings import show
from recjax.text import folder
from recjax.text.encoder import encode_texts, tokenise
from recjax.text.folder import EncoderFolder
from recjax.text.hub import MADE, find_folder
from recjax.text.items import ItemText
from recjax.text.whiten import whitened
from recjax.train.leaving import best_params
from recjax.train.task import Task
from recjax.typing import InputError, Params


def open_encoder_task(config: RunConfig, out: Path | None = None) -> Task:
    """The task of a configuration whose model is an `Alignment`; call it under the run's mesh.

    Args:
        config: of the run.
        out: folder that the trained encoder is written to, by default `encoder` in the run's.

    Raises:
        InputError: another model or other data, or no item of a catalog has a text.
    """
    model, data = config.model, config.data
    if not isinstance(model, Alignment):
        raise InputError(f"the recipe trains {type(model).__name__}, expected a sentence encoder (Alignment)")
    if not isinstance(data, Mixture):
        raise InputError("the recipe's data are one dataset, expected a Mixture: encoders learn from several")
    if data.weighting is not None:
        raise InputError("data.weighting follows held-out losses, which an encoder's training has not: set it to none")
    encoder, opened = model.read(), data.open()
    datasets = [dataset for dataset, _ in opened]
    loaders: list[Any] = []
    for number, (dataset, split) in enumerate(opened):
        texts = ItemText(model.template).texts(dataset.catalog)
        if not any(texts):
            raise InputError(f"no item of dataset {dataset.name!r} has a text, so an encoder can learn nothing from it")
        tokens = tokenise(encoder, [text or "" for text in texts])
        seed = config.seed + number
        loaders.append(PairLoader(split.train, tokens, encoder.max_tokens, data.rows, model.window, seed))
    total = sum(dataset.n_items for dataset in datasets)
    learner = AlignmentModel(model, encoder, ItemStats(total, np.zeros(total + 1, np.int64)))
    items = tuple(on_devices(bare_items(dataset.n_items)) for dataset in datasets)
    batches: Any = MixedLoader(loaders, data.weights(datasets))
    validate = _validation(config, model, data) if data.held_out and config.train.evaluate_every != 0 else None

    def finish(run_dir: Path) -> None:
        write_encoder(config, run_dir, out)

    return Task(*joint_identity(datasets), learner, batches, items, validate, encoder.params, finish)


def _validation(config: RunConfig, model: Alignment, data: Mixture) -> Callable[[Params], dict[str, float]]:
    """Parameters to metrics of whitened text neighbours on the validation targets of the catalog that is held out."""
    dataset, split = open_data(data.on(data.dataset))
    texts = ItemText(model.template).texts(dataset.catalog)
    whole = folder.read_folder(find_folder(model.encoder))
    examples = sampled(split.validation, config.train.validation_users)
    protocol = config.evaluators[0]
    if not isinstance(protocol, Evaluate):
        raise InputError(f"an encoder is aligned by the ranks of one target a user: evaluate is {show(protocol)}")
    if config.train.metric not in protocol.metrics:
        raise InputError(f"train.metric is {config.train.metric!r}, expected one of {', '.join(protocol.metrics)}")
    rules = replace(rules_of(protocol, dataset, split), k=0, candidates=None)

    def validate(params: Params) -> dict[str, float]:
        vectors = _vectors(replace(whole, params=params), dataset, texts)
        return mean_metrics(rank_scored(TextNeighbours(vectors).scores, examples, dataset.n_items, rules).ranks)

    return validate


def _vectors(encoder: EncoderFolder, dataset: Dataset, texts: list[str | None]) -> np.ndarray:
    """Whitened vectors, float32 [items + 1, d]."""
    vectors = np.zeros((dataset.n_items + 1, encoder.module.sizes.width), np.float32)
    vectors[1:] = encode_texts(encoder, [text or "" for text in texts], progress=True)
    return whitened(vectors, np.asarray(vectors.any(axis=1)))


def write_encoder(config: RunConfig, run_dir: Path, out: Path | None = None) -> Path:
    """Writes the run's best parameters so far as an encoder's folder; the first process writes.

    Args:
        config: of the run.
        run_dir: its folder.
        out: the encoder's, by default `encoder` in the run's.

    Returns:
        The encoder's folder.

    Raises:
        InputError: the run has no checkpoint, or `out` is the folder of the encoder to begin with.
    """
    out = encoder_place(config, run_dir, out)
    encoder = config.model.read()
    params = best_params(config, run_dir)
    if jax.process_index() == 0:
        folder.write_folder(find_folder(config.model.encoder), encoder, params, out)
    barrier("encoder written")
    return out


def encoder_place(config: RunConfig, run_dir: Path, out: Path | None) -> Path:
    """Folder of the trained encoder; InputError where it is that of the encoder to begin with."""
    out = run_dir / MADE if out is None else out
    if out.resolve() == find_folder(config.model.encoder).resolve():
        raise InputError(f"{out} holds the encoder to begin with, which would be lost: name another folder")
    return out

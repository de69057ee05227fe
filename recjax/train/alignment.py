"""From a recipe whose model is a sentence encoder to a run folder, and from that to the folder of an encoder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.config import RunConfig
from recjax.data.dataset import Dataset
from recjax.data.items import bare_items, on_devices
from recjax.data.loader import open_data
from recjax.data.mixture import MixedLoader, Mixture, joint_identity
from recjax.data.pairs import PairLoader
from recjax.evaluate.floors import TextNeighbours
from recjax.evaluate.metrics import mean_metrics
from recjax.evaluate.protocol import rules_of, sampled
from recjax.evaluate.scored import rank_scored
from recjax.models.alignment import Alignment, AlignmentModel
from recjax.models.model import ItemStats
from recjax.parallel.processes import barrier
from recjax.text import folder
from recjax.text.encoder import encode_texts, tokenise
from recjax.text.folder import EncoderFolder
from recjax.text.hub import MADE, find_folder
from recjax.text.items import ItemText
from recjax.text.whiten import whitened
from recjax.train.checkpoint import Checkpoints
from recjax.train.folder import CHECKPOINTS
from recjax.train.loop import Result, fit
from recjax.train.run import read_record
from recjax.train.start import begun
from recjax.train.task import Task
from recjax.typing import InputError, Params


@dataclass(frozen=True)
class Aligned:
    """What came of it.

    Attributes:
        result: of the training.
        out: the encoder's folder; None where training was interrupted.
        before: metrics of text neighbours on the held-out catalog by the encoder as it was; None without such a
            catalog, and where a run went on.
    """

    result: Result
    out: Path | None
    before: dict[str, float] | None


def align(
    config: RunConfig, run_dir: Path, out: Path | None = None, tell: Callable[[dict[str, float]], None] = print
) -> Aligned:
    """Trains a sentence encoder on what users have one after another, or goes on, and writes it as a folder.

    Args:
        config: its model is an `Alignment`, its data a `Mixture`.
        run_dir: the run's folder.
        out: where the encoder goes, by default `encoder` in the run's folder.
        tell: gets the metrics of the encoder as it was, before the first step of a new run.

    Raises:
        InputError: another model or other data, or `out` is the folder of the encoder to begin with; see
            `recjax.train.loop.fit` for the rest.
    """
    model, data = config.model, config.data
    if not isinstance(model, Alignment):
        raise InputError(f"the recipe trains {type(model).__name__}, expected a sentence encoder (Alignment)")
    if not isinstance(data, Mixture):
        raise InputError("the recipe's data are one dataset, expected a Mixture: encoders learn from several")
    out, source = run_dir / MADE if out is None else out, find_folder(model.encoder)
    if out.resolve() == source.resolve():
        raise InputError(f"{out} holds the encoder to begin with, which would be lost: name another folder")
    encoder = model.read()
    with jax.set_mesh(config.mesh.build()):
        task = _task(config, model, data, encoder)
        before = None if task.validate is None or begun(run_dir) else task.validate(encoder.params)
    if before is not None and jax.process_index() == 0:
        tell(before)
    result = fit(config, run_dir, task)
    if result.preempted:
        return Aligned(result, None, before)
    _write(config, run_dir, encoder, source, out)
    return Aligned(result, out, before)


def _task(config: RunConfig, model: Alignment, data: Mixture, encoder: EncoderFolder) -> Task:
    opened = data.open()
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
    return Task(*joint_identity(datasets), learner, batches, items, validate, encoder.params)


def _validation(config: RunConfig, model: Alignment, data: Mixture) -> Callable[[Params], dict[str, float]]:
    """Parameters to metrics of whitened text neighbours on the validation targets of the catalog that is held out."""
    dataset, split = open_data(data.on(data.dataset))
    texts = ItemText(model.template).texts(dataset.catalog)
    whole = folder.read_folder(find_folder(model.encoder))
    examples = sampled(split.validation, config.train.validation_users)
    rules = replace(rules_of(config.evaluate, dataset, split), k=0, candidates=None)

    def validate(params: Params) -> dict[str, float]:
        vectors = _vectors(replace(whole, params=params), dataset, texts)
        return mean_metrics(rank_scored(TextNeighbours(vectors).scores, examples, dataset.n_items, rules).ranks)

    return validate


def _vectors(encoder: EncoderFolder, dataset: Dataset, texts: list[str | None]) -> np.ndarray:
    """Whitened vectors, float32 [items + 1, d]."""
    vectors = np.zeros((dataset.n_items + 1, encoder.module.sizes.width), np.float32)
    vectors[1:] = encode_texts(encoder, [text or "" for text in texts])
    return whitened(vectors, np.asarray(vectors.any(axis=1)))


def _write(config: RunConfig, run_dir: Path, encoder: EncoderFolder, source: Path, out: Path) -> None:
    """The run's best parameters as an encoder's folder; the first process writes."""
    latest, record = read_record(run_dir)
    step = record["progress"]["best_step"] or latest
    whole = NamedSharding(config.mesh.build(), PartitionSpec())
    with Checkpoints(run_dir / CHECKPOINTS, writes=False) as checkpoints:
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), encoder.params)
        params = checkpoints.restore_params(step, target, averaged=config.train.ema is not None)
    if jax.process_index() == 0:
        folder.write_folder(source, encoder, jax.tree.map(np.asarray, params), out)
    barrier("encoder written")

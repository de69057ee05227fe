"""A trained run beside the evidence of its catalog: `pretrained+RUN`, where a command takes a run folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from recjax import array_files
from recjax.data.batches.views import Shifted, View
from recjax.data.items import Items
from recjax.data.splits import Examples
from recjax.data.store.locate import cache_folder
from recjax.evaluate.evaluator import sampled
from recjax.evaluate.metrics import user_metrics
from recjax.evaluate.ranking import rank_users
from recjax.models.combined import ENCODER, EVIDENCE, SHARE, Combined, CombinedModel
from recjax.models.evidence import EvidenceModel
from recjax.text.array_cache import cached
from recjax.train.run import Run
from recjax.typing import InputError, Params

SHARES = (0.0, 0.1, 0.3, 1.0, 2.0, 3.0, 6.0, 12.0)
"""Factors of the encoder's logits that are tried; at 0 the evidence ranks alone."""

ASKED = 5_000
"""Users of the validation part that decide, a fixed sample."""

METRIC = "ndcg@10"


def beside(trained: Run, folder: Path, evidence: Run, counted: Callable[[], Run]) -> Run:
    """A run of a trained encoder beside evidence, the encoder's share chosen on the validation events; the evidence's
    own run where the encoder adds nothing.

    Args:
        trained: the encoder's run.
        folder: of that run.
        evidence: the run of `pretrained` on its dataset.
        counted: makes the same with the training events alone counted; asked where the share is not known yet.

    Raises:
        InputError: the run reads histories by another view than `Shifted`, or does not score by products of vectors.
    """
    view = _with_times(trained.config.data.view, folder)
    assert isinstance(evidence.model, EvidenceModel)
    model = CombinedModel(evidence.model, trained.model, evidence.model.stats)
    parts = {EVIDENCE: _on_host(evidence.params), ENCODER: _on_host(trained.params)}
    share = _share(model, parts, counted, trained, view)
    note = f"its logits count {share:g} times beside the evidence, by the validation events"
    named = replace(evidence.config, name=f"{evidence.config.name}+{trained.config.name}")
    if share == 0.0:
        return replace(evidence, config=named, notes=(*evidence.notes, note))
    config = replace(
        named,
        data=replace(evidence.config.data, view=view),
        model=Combined(evidence.model.config, trained.config.model),
    )
    with jax.set_mesh(evidence.mesh):
        params = jax.device_put({**parts, SHARE: jnp.float32(share)})
    items = _items(evidence, trained)
    return replace(evidence, config=config, model=model, params=params, items=items, notes=(*evidence.notes, note))


def _with_times(view: View, folder: Path) -> View:
    """The view with the times that evidence reads, of histories without tokens of their own."""
    if not isinstance(view, Shifted):
        raise InputError(
            f"{folder} reads histories by {type(view).__name__}; beside evidence stands what reads by Shifted"
        )
    return replace(view, times=True)


def _on_host(params: Params) -> Params:
    return jax.tree.map(np.asarray, params)


def _items(evidence: Run, trained: Run) -> Items:
    """Items with the features of both; the evidence's own come last."""
    with jax.set_mesh(evidence.mesh):
        own = jax.device_put({**_on_host(trained.items.columns), **trained.items.relations})
    return replace(evidence.items, columns={}, relations={}).adding(
        {**own, **evidence.items.columns, **evidence.items.relations}
    )


def _share(model: CombinedModel, parts: Params, counted: Callable[[], Run], trained: Run, view: View) -> float:
    """The factor that ranks the validation events best; kept by content."""
    asked = sampled(trained.split.examples("validation"), ASKED)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(parts)}
    made_of = {**arrays, "targets": asked.targets, "times": asked.times}
    key = array_files.content_digest(made_of, {"catalog": trained.dataset.fingerprint, "view": repr(view)})

    def make() -> dict[str, np.ndarray]:
        evidence = counted()
        items = _items(evidence, trained)
        with jax.set_mesh(evidence.mesh):
            found = [_ndcg(model, parts, share, asked, view, items) for share in SHARES]
        return {"place": np.array(int(np.argmax(found))), "ndcg": np.array(found)}

    found = cached(cache_folder() / "features" / f"share-{key[:16]}.safetensors", key, make)
    return SHARES[int(found["place"])]


def _ndcg(model: CombinedModel, parts: Params, share: float, asked: Examples, view: View, items: Items) -> float:
    params = jax.device_put({**parts, SHARE: jnp.float32(share)})
    ranked = rank_users(model, params, asked, view, str, items)
    return float(user_metrics(ranked.ranks)[METRIC].mean())

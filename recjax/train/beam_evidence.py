"""The evidence of `pretrained` in a log that outgrows one machine, counted by Beam and kept where the model looks."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from recjax.data.batches.loader import split_for_ranking
from recjax.data.event_counts import Linked
from recjax.data.features import beam_evidence
from recjax.data.features.counting import LINKED
from recjax.data.features.evidence import near_texts
from recjax.data.prepare.pipeline import Runner
from recjax.data.splits import unsplit
from recjax.data.store.locate import cache_folder, locate
from recjax.data.store.prepared import is_prepared, load_unread
from recjax.data.store.remote import Place, is_remote, place, remove
from recjax.train.catalogs import keep_features, open_catalogs
from recjax.train.pretrained import evidence_config
from recjax.typing import InputError


def count_by_beam(
    dataset: str, runner: Runner, *, all_events: bool, work: Place | None = None, encoder: str | None = None
) -> tuple[int, int]:
    """Counts the relations of a prepared dataset by a pipeline and puts them into the cache, where `pretrained` finds
    them instead of counting.

    Args:
        dataset: name or folder, prepared.
        runner: where the pipeline runs.
        all_events: as `recommend` counts; otherwise the training events alone, as `evaluate` does.
        work: an empty folder that every worker reaches, removed in the end; default: one in the cache.
        encoder: the sentence encoder of `pretrained:ENCODER`.

    Returns:
        Items with links, and events that were counted.

    Raises:
        InputError: the dataset is not prepared or has no events.
    """
    config = evidence_config(dataset, encoder)
    folder = locate(dataset, ())
    if not is_prepared(folder):
        raise InputError(f"Beam counts prepared datasets, and {folder} is not: recjax prepare NAME --raw {folder}")
    opened = load_unread(folder)
    if not opened.n_interactions:
        raise InputError(f"{folder} has no events to count")
    pipeline = runner.pipeline()
    split = unsplit(opened, "") if all_events else split_for_ranking(replace(config.data, resident=False), opened)
    texts = open_catalogs(replace(config, items={"text": config.items["text"]}), [(opened, split)], None)
    assert texts is not None
    text = near_texts(np.asarray(texts.parts[0].relation("text").ids))
    widths: dict[Linked, int] = {name: int(np.sum(config.items[name].shape())) for name in LINKED}

    def count(work: Place) -> tuple[int, int]:
        there = place(dataset) if is_remote(dataset) else folder
        links, totals = beam_evidence.counted(pipeline, there, split.train, opened.n_items, text, widths, work)
        keep_features(config, opened, split, {**links, "totals": totals})
        return int((totals.any(axis=1)).sum()), len(split.train.items)

    if work is None:
        with tempfile.TemporaryDirectory(prefix="counts-", dir=cache_folder()) as scratch:
            return count(Path(scratch))
    try:
        if isinstance(work, Path):
            work.mkdir(parents=True)
        return count(work)
    finally:
        remove(work)

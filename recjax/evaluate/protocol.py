"""The ranking protocol: users, competing items, masked items."""

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from recjax.data.batches.views import View
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.prepare.audit import audit
from recjax.data.splits import Examples, Split, last_events
from recjax.data.transitions import item_counts
from recjax.evaluate.candidates import WARNING, sample
from recjax.evaluate.evaluator import EvaluationData, Evaluator, named, sampled
from recjax.evaluate.floors import FLOORS, check_baselines, check_names, rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.intervals import bootstrap
from recjax.evaluate.metrics import ACCURACY, LIST_LENGTH, MISS, coverage, mean_metrics, novelty, popularity_lift
from recjax.evaluate.ranking import Rankings, rank_users
from recjax.evaluate.report import NOT_RANKED, RANK, TIES, Report, dataset_facts
from recjax.evaluate.slices import gap_slices, slices
from recjax.limits import COUNT, SEED, SIZE, require, within
from recjax.models.model import Model
from recjax.typing import InputError, Params


@dataclass(frozen=True)
class Evaluate(Evaluator):
    """Ranks one target a user in the whole catalog: the default.

    Attributes:
        split: which targets.
        mask_seen: "history": items of the user's history leave the ranking (and a target among them is a miss);
            "none": they stay.
        candidates: "full": every item of the catalog competes. "uniform100" and "popularity100": a hundred sampled
            items do, only to compare with papers that did so; such figures are not comparable with full ones, and do
            not even order models the same way (Krichene & Rendle 2020).
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        k: length of the lists, and a cut-off of the metrics beside the usual ones.
        seed: of sampled candidates, of the bootstrap and of the lengths of short histories.
        max_history: cold start: every history is cut to its last 1 to `max_history` events, how many being drawn for
            each user; models and floors see no more. Masking, and what counts as a repeat, follow the events that are
            left: an item that was cut off may be recommended again. None shows whole histories. Validation while
            training always does.
        gap_slices: report users with short and with long times between events apart, halves by the median.
        baselines: which of `floors.BASELINES` to fit and rank beside the floors.
    """

    split: Literal["test", "validation"] = "test"
    mask_seen: Literal["history", "none"] = "history"
    candidates: Literal["full", "uniform100", "popularity100"] = "full"
    users_per_batch: int = 256
    bootstrap: int = 1000
    k: int = 20
    seed: int = 0
    max_history: int | None = None
    gap_slices: bool = False
    baselines: tuple[str, ...] = ()

    metrics: ClassVar[tuple[str, ...]] = ACCURACY

    def __post_init__(self) -> None:
        require(
            self, users_per_batch=SIZE, bootstrap=within(0, 100_000), k=within(10, 10_000), seed=SEED, max_history=COUNT
        )
        check_names(self)

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        """Accuracy metrics of a sample of the validation users; the whole catalog always competes."""
        rankings = rank_users(
            model,
            params,
            sampled(data.split.validation, users),
            data.view,
            "number {}".format,
            data.items,
            mask_seen=self.mask_seen,
            users_per_batch=self.users_per_batch,
            progress=True,
        )
        return mean_metrics(rankings.ranks)

    def evaluate(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        *,
        floors: bool = True,
        name: str = "model",
        progress: bool = False,
    ) -> Report:
        dataset, split = data.dataset, data.split
        check_baselines(self.baselines, dataset.n_items)
        examples = examples_of(self, dataset, split)
        rules = rules_of(self, dataset, split)
        started = time.perf_counter()
        rankings = rank_users(
            model,
            params,
            examples,
            data.view,
            lambda user: dataset.user_ids[user],
            data.items,
            mask_seen=self.mask_seen,
            users_per_batch=self.users_per_batch,
            k=rules.k,
            candidates=rules.candidates,
            progress=progress,
        )
        seconds = time.perf_counter() - started
        return report(
            rankings,
            dataset,
            split,
            self,
            rules,
            name=name,
            seconds=seconds,
            floors=floors,
            vectors=data.vectors,
            progress=progress,
            notes=search_notes(model, rankings),
        )


def search_notes(model: Model, rankings: Rankings) -> dict[str, Any]:
    """The model's notes, and the share of targets that its search has found where it missed some."""
    if not rankings.unranked:
        return model.notes
    return model.notes | {"targets found": round(1 - rankings.unranked / len(rankings.ranks), 4)}


def evaluate(
    model: Model,
    params: Params,
    dataset: Dataset,
    split: Split,
    view: View,
    config: Evaluator | tuple[Evaluator, ...] = Evaluate(),
    items: Items | None = None,
    *,
    floors: bool = True,
    name: str = "model",
    vectors: np.ndarray | None = None,
    progress: bool = True,
) -> Report:
    """Measures a model on all devices of the current mesh, and reports it beside the floors.

    Args:
        model: what is measured.
        params: its parameters.
        dataset: the catalog.
        split: its split.
        view: how a history becomes a query.
        config: an evaluator, or several: the first one's is the report, the others' are its `tasks`.
        items: of the catalog, on the devices; None for a model of item ids.
        floors: whether to measure the floors too (some seconds).
        name: what to call the model.
        vectors: item vectors for the text floor, see `floors.rank_floors`.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        InputError: the model was built for another catalog, or the split has no such part.
        NonFiniteScoresError: names the users with scores that are NaN or infinite.
    """
    if model.n_items != dataset.n_items:
        raise InputError(
            f"the model knows {model.n_items:,} items, dataset {dataset.name!r} has {dataset.n_items:,}: a model of "
            "item ids only ranks the catalog that it was trained on"
        )
    data = EvaluationData(dataset, split, view, items, vectors)
    evaluators = named(config if isinstance(config, tuple) else (config,))
    for evaluator in evaluators.values():
        evaluator.check(data)
    first, *others = (
        evaluator.evaluate(model, params, data, floors=floors, name=name, progress=progress)
        for evaluator in evaluators.values()
    )
    notes = first.notes | ({NOT_RANKED: dataset.left_out} if dataset.left_out else {})
    return replace(first, notes=notes, tasks=dict(zip(list(evaluators)[1:], others, strict=True)))


def examples_of(config: Evaluate, dataset: Dataset, split: Split) -> Examples:
    """The examples: histories as the protocol shows them, and their targets."""
    examples = split.examples(config.split)
    if config.max_history is None:
        return examples
    return last_events(examples, config.max_history, dataset.n_users, config.seed)


def rules_of(config: Evaluate, dataset: Dataset, split: Split) -> Rules:
    """Items that compete with each target; sampled candidates are the same for every model and floor."""
    masked = config.mask_seen == "history"
    if config.candidates == "full":
        return Rules(masked, config.k)
    counts = item_counts(split.train.items, dataset.n_items)
    kind = "uniform" if config.candidates == "uniform100" else "popularity"
    return Rules(masked, 0, sample(kind, examples_of(config, dataset, split), counts, config.seed))


def report(
    rankings: Rankings,
    dataset: Dataset,
    split: Split,
    config: Evaluate,
    rules: Rules,
    *,
    name: str,
    seconds: float,
    floors: bool = True,
    vectors: np.ndarray | None = None,
    progress: bool = False,
    notes: dict[str, Any] | None = None,
) -> Report:
    """The report of rankings, of a model or of a file. Arguments as in `evaluate`."""
    examples = examples_of(config, dataset, split)
    counts = item_counts(split.train.items, dataset.n_items)
    groups = {"all": np.ones(len(examples), bool)} | slices(examples, counts, dataset.n_unseen)
    if config.gap_slices:
        if not dataset.has_times:
            raise InputError(f"evaluate.gap_slices needs times, and dataset {dataset.name!r} has places in an order")
        groups |= gap_slices(examples)
    ranked: dict[str, Rankings | None] = {}
    if floors:
        only = (*FLOORS, *config.baselines)
        ranked = rank_floors(
            dataset, split, config.split, examples, rules, vectors=vectors, only=only, progress=progress
        )
    catalog = dataset.n_items + dataset.left_out
    metrics = {group: figures(rankings, rows, catalog, config.k) for group, rows in groups.items()}
    if rankings.lists is not None:
        lists, histories = rankings.lists[:, :LIST_LENGTH], examples.histories
        metrics["all"]["novelty@10"] = novelty(lists, counts)
        metrics["all"]["popularity_lift@10"] = popularity_lift(lists, histories.items, histories.lengths, counts)
    protocol: dict[str, Any] = {
        "split": config.split,
        "candidates": config.candidates,
        "mask_seen": config.mask_seen,
        "tie": TIES,
    }
    if config.max_history is not None:
        protocol["max_history"] = config.max_history
    return Report(
        name=name,
        dataset=dataset_facts(dataset),
        protocol=protocol if config.candidates == "full" else protocol | {"warning": WARNING},
        metrics=metrics,
        interval=bootstrap(rankings.ranks, config.bootstrap, config.seed, k=config.k),
        floors={
            floor: None if found is None else figures(found, groups["all"], catalog, config.k)
            for floor, found in ranked.items()
        },
        counts={"users": len(examples)} | {group: int(rows.sum()) for group, rows in groups.items() if group != "all"},
        seconds=seconds,
        audit=audit(dataset, split).to_json(),
        notes=notes or {},
        users=_users(examples, rankings, ranked, dataset),
    )


def _users(
    examples: Examples, rankings: Rankings, ranked: dict[str, Rankings | None], dataset: Dataset
) -> pl.DataFrame:
    """See `Report.users`."""
    ranks = pl.col(f"^{RANK}.*$")
    return pl.DataFrame(
        {
            "user_id": [dataset.user_ids[user] for user in examples.histories.users],
            "target": [dataset.item_ids[item] for item in examples.targets],
            RANK: rankings.ranks,
            "history": examples.histories.lengths,
            **{f"{RANK}_{floor}": found.ranks for floor, found in ranked.items() if found is not None},
        }
    ).with_columns(pl.when(ranks < int(MISS)).then(ranks))


def figures(rankings: Rankings, rows: np.ndarray, n_items: int, k: int | None = None) -> dict[str, float]:
    """The metrics of some of the users; empty for no users.

    Args:
        rankings: of all users.
        rows: bool [n], which users.
        n_items: catalog size.
        k: another cut-off beside the usual ones.
    """
    if not rows.any():
        return {}
    metrics = mean_metrics(rankings.ranks[rows], k)
    if rankings.lists is not None:
        metrics["coverage@10"] = coverage(rankings.lists[rows, :LIST_LENGTH], n_items)
    return metrics

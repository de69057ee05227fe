"""A trained run as an object that recommends: what `recjax.load` gives."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import numpy as np
import polars as pl

from recjax import frames, recipes
from recjax.data.batches.loader import Data
from recjax.data.splits import Histories
from recjax.data.store.prepared import find
from recjax.evaluate import vectors
from recjax.evaluate.calibrated import Calibrated
from recjax.evaluate.corrections import corrections, event_table, replaced
from recjax.evaluate.filling import fill_users
from recjax.evaluate.program import export_ranking
from recjax.evaluate.questions import Asking
from recjax.evaluate.ranking import prepared
from recjax.evaluate.recommend import Fallback, Recommendations, known_events, recommend
from recjax.evaluate.report import Report
from recjax.evaluate.selection import item_mask, users_alone
from recjax.evaluate.user_events import UserEvents, of_dataset, of_file, raw_id, typed
from recjax.nn.groups import path_name
from recjax.parallel.startup import initialize
from recjax.train.pretrained import is_pretrained, load_named, open_run
from recjax.train.run import Run
from recjax.typing import InputError

Ids = Iterable[Any]
"""Raw ids: a list, an array or a column of a frame."""


class Recommender:
    """A run, ready to recommend.

    Where it gives tables they are polars frames, and what could not be used (items that the catalog does not have,
    users without events) comes as a warning.

    Args:
        run: opened.
        folder: of the run.
        recipe: module that defines configurations of the run's own, if it has any.

    Attributes:
        run: model, parameters, catalog and configuration.
        folder: of the run.
        recipe: as given.
    """

    def __init__(self, run: Run, folder: Path, recipe: ModuleType | None = None):
        self.run, self.folder, self.recipe = run, folder, recipe
        self._item_vectors: np.ndarray | None = None

    def __repr__(self) -> str:
        run = self.run
        return (
            f"<recjax run {run.config.name!r}: {type(run.config.model).__name__}, {run.dataset.n_items:,} items of "
            f"{run.dataset.name!r}, step {run.step:,}>"
        )

    @property
    def items(self) -> pl.DataFrame:
        """The catalog: `item_id` and `title`."""
        return self.run.dataset.catalog.select("item_id", "title")

    def recommend(
        self,
        histories: Any = None,
        *,
        k: int = 10,
        users: Ids | Literal["all"] | None = None,
        candidates: Ids | None = None,
        exclude: Ids | None = None,
        columns: Mapping[str, str] | None = None,
        mask_seen: Literal["history", "none"] | None = None,
        fallback: Fallback = "popularity",
    ) -> pl.DataFrame:
        """The best items for each user.

        Args:
            histories: item ids of each user, oldest first: a list of lists, a mapping of users to lists, or the list of
                one user; or a table (polars, pandas or the path of a file) with user, item and time, or with one
                column, of users of the run's dataset.
            k: length of the lists.
            users: instead of histories, ids of users of the run's dataset, or "all"; needs that dataset.
            candidates: ids of the only items that may be listed.
            exclude: ids of items that may not.
            columns: of a table, our column names to its own, e.g. {"user_id": "CustomerID"}.
            mask_seen: "history" leaves out what the user has had, "none" does not; by default as the recipe evaluates.
            fallback: what users get of whom no event can be used: "popularity" or "none".

        Returns:
            user_id, rank (from 1), item_id, title, score, fallback (null where the model ranked).

        Raises:
            InputError: something given cannot be used as it is.
        """
        found = self.answer(
            self.events(histories, users=users, columns=columns),
            k=k,
            candidates=candidates,
            exclude=exclude,
            mask_seen=mask_seen,
            fallback=fallback,
        )
        for line in found.lines(self.run.dataset):
            warnings.warn(line, stacklevel=2)
        return found.table

    def events(
        self,
        histories: Any = None,
        *,
        users: Ids | Literal["all"] | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> UserEvents:
        """The events of the users that `recommend` is asked about, see there."""
        if (histories is None) == (users is None):
            raise InputError("give histories, or users of the run's dataset")
        if users is not None:
            if isinstance(users, str) and users != "all":
                raise InputError(f"users is {users!r}, expected a list of user ids, or 'all'")
            return self._known_users(None if isinstance(users, str) else list(users))
        if isinstance(histories, Path) or (isinstance(histories, str) and Path(histories).is_file()):
            return self._of_file(Path(histories), columns)
        if frames.is_frame(histories):
            with frames.as_file(histories, "users") as path:
                return self._of_file(path, columns, "the frame of users")
        return typed(histories)

    def _of_file(self, path: Path, columns: Mapping[str, str] | None, what: str = "") -> UserEvents:
        users = users_alone(path, columns)
        return of_file(path, columns, what) if users is None else self._known_users(users)

    def answer(
        self,
        events: UserEvents,
        *,
        k: int = 10,
        candidates: Ids | None = None,
        exclude: Ids | None = None,
        mask_seen: Literal["history", "none"] | None = None,
        fallback: Fallback = "popularity",
        progress: bool = True,
    ) -> Recommendations:
        """`recommend` for events of users, with all that was left out beside the lists."""
        run = self.run
        mask, notes = item_mask(run.dataset, candidates, exclude)
        with jax.set_mesh(run.mesh):
            found = recommend(
                run.model,
                run.params,
                run.dataset,
                run.config.data.view,
                events,
                run.items,
                k=k,
                mask_seen=mask_seen or run.config.evaluators[0].mask_seen,
                candidates=mask,
                popularity=run.popularity,
                fallback=fallback,
                progress=progress,
            )
        return found.after(notes)

    def similar(
        self, items: Ids, k: int = 10, *, candidates: Ids | None = None, exclude: Ids | None = None
    ) -> pl.DataFrame:
        """The items most like each of some, by the cosine of the model's item vectors.

        A model without such vectors (`pretrained`) lists what it would to a user who has had that item alone.

        Args:
            items: raw ids.
            k: length of the lists.
            candidates: ids of the only items that may be listed.
            exclude: ids of items that may not.

        Returns:
            item_id, rank (from 1), similar_id, title (of the similar item), score.

        Raises:
            InputError: an id that the catalog does not have.
        """
        found = self.alike(items, k, candidates=candidates, exclude=exclude)
        for line in found.notes:
            warnings.warn(line, stacklevel=2)
        return found.table

    def alike(
        self, items: Ids, k: int = 10, *, candidates: Ids | None = None, exclude: Ids | None = None
    ) -> Recommendations:
        """`similar` with what was left out beside the lists."""
        if k < 1:
            raise InputError(f"k is {k}, expected at least 1")
        dataset = self.run.dataset
        raw = [items] if isinstance(items, str) else list(dict.fromkeys(map(raw_id, items)))
        asked = dataset.item_index(raw)
        try:
            own = self._vectors()
        except vectors.NoVectorsError:
            histories = typed({item: [item] for item in raw})
            found = self.answer(histories, k=k, candidates=candidates, exclude=exclude, mask_seen="history")
            names = {"user_id": "item_id", "item_id": "similar_id"}
            return replace(found, table=found.table.drop("fallback").rename(names))
        mask, notes = item_mask(dataset, candidates, exclude)
        lists, scores = vectors.alike(own, asked, min(k, dataset.n_items), mask)
        row, place = np.nonzero(lists)
        item = lists[row, place]
        ids = pl.Series(dataset.item_ids, dtype=pl.String)
        table = pl.DataFrame(
            {
                "item_id": pl.Series(raw, dtype=pl.String).gather(row),
                "rank": (place + 1).astype(np.int32),
                "similar_id": ids.gather(item),
                "title": dataset.catalog["title"].gather(item - 1),
                "score": scores[row, place],
            }
        )
        return Recommendations(table, {}, [], notes)

    def item_vectors(self) -> pl.DataFrame:
        """The vector of every item: item_id, title, vector (float32); its dot product with a user's is the score.

        Raises:
            InputError: the model does not rank by a dot product.
        """
        found = self._vectors()
        return self.items.with_columns(_column(found))

    def user_vectors(
        self,
        histories: Any = None,
        *,
        users: Ids | Literal["all"] | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> pl.DataFrame:
        """The vectors of users: user_id, vector (float32); null where no event of the user can be used.

        Args:
            histories: see `recommend`.
            users: see `recommend`.
            columns: see `recommend`.

        Raises:
            InputError: the model does not rank by a dot product.
        """
        found = self.vectors_of(self.events(histories, users=users, columns=columns))
        for line in found.lines(self.run.dataset):
            warnings.warn(line, stacklevel=2)
        return found.table

    def vectors_of(self, events: UserEvents) -> Recommendations:
        """`user_vectors` for events of users, with all that was left out beside the table."""
        run = self.run
        known, unknown = known_events(events, run.dataset)
        there, lengths = np.unique(known.users, return_counts=True)
        with jax.set_mesh(run.mesh):
            read = Histories.concatenated(lengths, known.items, known.times, there)
            found = vectors.user_vectors(run.model, run.params, read, run.config.data.view, run.items)
        names = pl.Series("user_id", known.names, dtype=pl.String)
        rows = pl.DataFrame({"user_id": names.gather(there)}).with_columns(_column(found))
        table = pl.DataFrame({"user_id": names}).join(rows, on="user_id", how="left", maintain_order="left")
        without = table.filter(pl.col("vector").is_null())["user_id"].to_list()
        return Recommendations(table, unknown, without, events.notes, "none")

    def export_program(self, folder: str | Path, *, k: int = 10, batch: int = 8, seen: int = 512) -> dict[str, Any]:
        """Writes the ranking as a compiled program (StableHLO) with its weights and a page that says how to run it.

        Args:
            folder: made if absent.
            k: length of the lists.
            batch: users of a call.
            seen: items that each user may have left out.

        Returns:
            What the folder's `program.json` says.

        Raises:
            InputError: the ranking cannot be one program.
        """
        run = self.run
        with jax.set_mesh(run.mesh):
            items = prepared(run.model, run.params, run.items)
        about = {"run": run.config.name, "step": run.step}
        given = (run.model, run.params, run.dataset, run.config.data.view, items, Path(folder))
        return export_ranking(*given, k=k, batch=batch, seen=seen, about=about)

    def weights(self) -> dict[str, np.ndarray]:
        """The parameters by their paths, on the host."""
        return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(self.run.params)}

    def evaluate(
        self,
        dataset: str | None = None,
        *,
        split: Literal["test", "validation"] | None = None,
        floors: bool = True,
        settings: Sequence[str] = (),
    ) -> Report:
        """The full ranking of the held-out events, beside the floors; needs the dataset.

        Args:
            dataset: name or folder of another one than the run's, for models of texts.
            split: "test" or "validation"; by default as the recipe says.
            floors: measure the floors too.
            settings: KEY=VALUE that change the protocol, e.g. "evaluate.mask_seen=none".

        Returns:
            A report: `.metrics`, `.floors`, `.table()`, `.users`.
        """
        given = [*settings, *([f"evaluate.split={split}"] if split else [])]
        data = dataset or (self.run.config.data.dataset if is_pretrained(self.folder) else None)
        name = str(self.folder) if is_pretrained(self.folder) else self.folder.resolve().name
        return load_named(self.folder, data, self.recipe, given).report(name, floors=floors)

    def calibrated(self, about: Sequence[str] | None = None, *, users: int = 1000, **asking: Any) -> Calibrated:
        """Prediction sets of a stated coverage, `.sets(histories)`, and questions to a user, `.ask(history)`.

        Needs the dataset. What comes with recjax counts the training events alone here.

        Args:
            about: columns of the catalog to ask about; by default its categories, genres and brands, or titles.
            users: most held-out users that the coverage is calibrated on.
            asking: coverage (0.7) and more, see `recjax.evaluate.questions.Asking`.
        """
        data = self.run.config.data.dataset if is_pretrained(self.folder) else None
        run = load_named(self.folder, data, self.recipe)
        return run.calibrated(about, Asking(**asking), users)

    def filled(
        self,
        histories: Any = None,
        *,
        users: Ids | Literal["all"] | None = None,
        columns: Mapping[str, str] | None = None,
        stop: float = 0.9,
        most: int | None = None,
        repeats: bool = False,
    ) -> pl.DataFrame:
        """Histories, playlists or baskets with what is missing in them, wherever that belongs.

        Of a run that inserts (`insertion_ml1m`). One event is inserted at a time, the likeliest in the likeliest place,
        until the run says that nothing is missing or there is no more room. An empty list is filled from nothing.

        Args:
            histories: see `recommend`.
            users: see `recommend`.
            columns: see `recommend`.
            stop: probability that nothing is missing from which on nothing is inserted.
            most: insertions into a history; by default as many as the run has room for.
            repeats: whether an item that a history has may be inserted.

        Returns:
            user_id, place (from 1), item_id, title, inserted (the number of the insertion, null for what was there).

        Raises:
            InputError: a run that does not insert, numbers that cannot be, or a history that leaves no room.
        """
        if not 0 <= stop <= 1 or (most is not None and most < 0):
            raise InputError(f"stop={stop}, most={most}: expected a probability, and 0 or more or None")
        run, events = self.run, self.events(histories, users=users, columns=columns)
        with jax.set_mesh(run.mesh):
            given = (run.model, run.params, run.dataset, run.config.data.view, events, run.items)
            found = fill_users(*given, stop=stop, most=most, repeats=repeats)
        for line in found.lines(run.dataset):
            warnings.warn(line, stacklevel=2)
        return found.table

    def rewritten(self, *, share: float = 0.05, most: int = 2) -> pl.DataFrame:
        """The dataset's events, the training events among them that look most out of place replaced.

        Of a run that says so (`llm4dsr_toys`); needs the dataset. Written beside the catalog, it is a dataset for any
        other model. Held-out events stay as they are.

        Args:
            share: of the training events that are replaced; 0 leaves them as the run has seen them.
            most: replaced events in as many as the model sees at a time.

        Returns:
            user_id, item_id, timestamp, was (the item before, null where it stands), doubt (a probability; null for
            held-out events).

        Raises:
            InputError: a share that is none, a run that does not look for such events, or a split of other histories.
        """
        if not 0 <= share <= 1 or most < 1:
            raise InputError(f"share={share}, most={most}: expected a share from 0 to 1, and 1 or more")
        run = load_named(self.folder, None, self.recipe)
        train = run.split.train.compact()
        with jax.set_mesh(run.mesh):
            found = corrections(run.model, run.params, train, run.config.data.view, run.items)
        items = replaced(np.asarray(train.items), found, share, most)
        return event_table(run.dataset, run.split, items, found.doubts)

    def dataset(self) -> Any:
        """The dataset that the run was trained on, with its users, as it is now."""
        data: Data = self.run.config.data
        return find(data.dataset, data.prepare, data.resident)

    def _known_users(self, users: list[Any] | None) -> UserEvents:
        """Events of users of the dataset, as that is now; of all with None."""
        run = self.run
        try:
            dataset = self.dataset()
        except InputError as error:
            raise InputError(
                f"users by id have the histories of the run's dataset, which cannot be read here ({error}): give their "
                "events instead"
            ) from None
        events = of_dataset(dataset, users)
        if run.dataset.fingerprint in (dataset.fingerprint, dataset.of_events().fingerprint):
            return events
        note = f"dataset {dataset.name!r} has changed since the run was trained on it; the histories are those of today"
        return replace(events, notes=(note, *events.notes))

    def _vectors(self) -> np.ndarray:
        if self._item_vectors is None:
            run = self.run
            with jax.set_mesh(run.mesh):
                self._item_vectors = vectors.item_vectors(run.model, run.params, run.config.data.view, run.items)
        return self._item_vectors


def _column(found: np.ndarray) -> pl.Series:
    width = found.shape[1] if found.size else 1
    return pl.Series("vector", found, dtype=pl.Array(pl.Float32, width)).cast(pl.List(pl.Float32))


def load(run: str | Path, recipe: str | Path | None = None, data: str | None = None) -> Recommender:
    """A trained run, ready to recommend; see `recjax.load`."""
    initialize()
    module = recipes.read(str(recipe)).module if recipe is not None else None
    folder = Path(run)
    found = open_run(folder, data, module)
    for note in found.notes:
        warnings.warn(f"{folder}: {note}", stacklevel=3)
    return Recommender(found, folder, module)

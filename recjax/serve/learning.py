"""Events that count for the lists of everybody, where the model ranks by counts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.event_counts import Linked
from recjax.data.features.counting import LINKED, ChangedLinks, Counting
from recjax.data.items import Items, Relation
from recjax.serve.programs import Programs

ROWS = 64
"""Items whose links are written at a time: one event changes up to 51 in the relation of what was had together."""


class Learning:
    """Rankings of items whose features follow a `Counting`; all of it belongs to one thread.

    Args:
        counting: of the items.
        programs: the rankings. Their items are used up, for relations are written in place, and replaced.
    """

    def __init__(self, counting: Counting, programs: Programs):
        self._counting, self._programs = counting, programs
        items, nothing = programs.items, np.zeros(0, np.int32)
        for name in LINKED:  # compiled now, not for the first event
            none = np.zeros((0, items.relation(name).ids.shape[1]))
            self._write({name: ChangedLinks(nothing, none, none)})

    def take(self, before: np.ndarray, events: Sequence[int]) -> None:
        """Counts events of one user, who has had the items `before` them; both oldest first."""
        if len(events):
            self._write(self._counting.add(before, events))

    def _write(self, changed: dict[Linked, ChangedLinks]) -> None:
        items: Items = self._programs.items
        found: dict[str, Any] = {}
        for name, links in changed.items():
            relation = items.relation(name)
            for start in range(0, max(len(links.rows), 1), ROWS):
                part = [array[start : start + ROWS] for array in (links.rows, links.ids, links.values)]
                fill = ROWS - len(part[0])
                rows = np.pad(part[0], (0, fill), constant_values=np.iinfo(np.int32).max)  # falls off the end
                ids, values = (np.pad(array, ((0, fill), (0, 0))) for array in part[1:])
                relation = _written(relation, rows, ids.astype(np.int32), values.astype(np.float32))
            found[name] = relation
        totals = items["totals"]
        rows = np.zeros(totals.shape, np.float32)
        rows[: len(self._counting.totals)] = self._counting.totals
        found["totals"] = jax.device_put(rows, totals.sharding)
        self._programs.items = items.adding(found)


@partial(jax.jit, donate_argnums=0)
def _written(relation: Relation, rows: np.ndarray, ids: np.ndarray, values: np.ndarray) -> Relation:
    """A relation with the links of some items written anew; items beyond its end are none."""
    return Relation(
        jnp.asarray(relation.ids).at[rows].set(ids, mode="drop"),
        jnp.asarray(relation.values).at[rows].set(values, mode="drop"),
    )

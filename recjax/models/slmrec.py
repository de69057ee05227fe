"""SLMRec: how few layers of a language model recommend as well as many, and what these can teach those.

Xu et al., SLMRec: Distilling Large Language Models into Small for Sequential Recommendation, ICLR 2025.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import COUNT, at_least, refuse, require, within
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.language_network import Network, backbone, read_blocks
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.nn.lora import LoRA
from recjax.ops.items.embedding import lookup, take_position
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, InputError, Params

STUDENT, TEACHER = "student", "teacher"
"""Parameters of the two networks. A run that has no teacher trains what is the teacher of the next one."""

SMALL = DecoderConfig(vocabulary=0, width=64, layers=2, heads=2, kv_heads=2, channels=32, inner=172)
ADAPTED = LoRA(16, 16.0, ("gate", "up", "down"))


@dataclass(frozen=True)
class SLMRec(ModelConfig):
    """A decoder over frozen vectors of items: the first blocks of a language model, or as many from scratch.

    Vectors go in by a linear map, and states out by another, without biases; the score of an item is the product with
    its frozen vector. Of a language model's folder the weights are frozen and adapters trained; from scratch, all is.
    Without `teacher`, that is a teacher, trained by cross-entropy. With one, whose parameters the run takes over and
    freezes (`train.take` and `train.freeze`: "^teacher/"), the loss of a student of `base.layers` blocks is

        CE + sum_i [distil (1 - cos(s_i, t_i)) + distance |s_i - t_i|] + supervise sum_i CE(A_i s_i)

    with s_i and t_i the states after the i-th of `parts` parts of both networks, A_i a linear map for all but the last.
    Factors of the first two are the published ones with `distil` 1 [ours]. Not the paper's: vectors of items are
    those of behaviour, which are counted, and there is no prompt around them.

    Attributes:
        base: sizes of the network, with vocabulary 0.
        teacher: blocks of the teacher; 0 for none.
        weights: folder of a language model whose first blocks these are, see `recjax.text.hub.find_folder`; None for a
            network from scratch.
        lora: adapters of the blocks from a folder.
        parts: i is 1 to parts, a divisor of both numbers of blocks.
        distil: factor of the directions' term.
        distance: factor of the distances' term.
        supervise: factor of the intermediate cross-entropies.
        leave: blocks after which to score in place of all, for a trained network that is cut; None for all.
        vectors: column of the frozen vectors.
        loss: training objective.
    """

    base: DecoderConfig = SMALL
    teacher: int = 0
    weights: str | None = None
    lora: LoRA = ADAPTED
    parts: int = 2
    distil: float = 1.0
    distance: float = 0.1
    supervise: float = 0.1
    leave: int | None = None
    vectors: str = "behaviour"
    loss: Objective = field(default_factory=FullSoftmax)

    def __post_init__(self) -> None:
        rates = {name: at_least(0) for name in ("distil", "distance", "supervise")}
        require(self, teacher=within(0, 1024), parts=COUNT, leave=COUNT, **rates)
        if self.base.vocabulary:
            refuse(self, "base", "sizes with vocabulary 0, for the network reads vectors alone")
        if self.teacher and (self.base.layers % self.parts or self.teacher % self.parts):
            refuse(self, "parts", f"a divisor of both {self.base.layers} and {self.teacher} blocks")
        if self.leave is not None and self.leave > self.base.layers:
            refuse(self, "leave", f"at most {self.base.layers}, the blocks that there are")

    def build(self, stats: ItemStats) -> "SLMRecModel":
        if len(stats.columns.get(self.vectors, ())) != 1:
            known = ", ".join(stats.columns) or "none"
            raise InputError(
                f"SLMRec reads the vectors {self.vectors!r} of each item, but the columns are: {known}; the recipe "
                f"needs items={{{self.vectors!r}: Behaviour()}} or VectorFile"
            )
        lora = None if self.weights is None else self.lora
        teacher = Network(replace(self.base, layers=self.teacher), lora) if self.teacher else None
        return SLMRecModel(self, Network(self.base, lora), teacher, stats)

    def given(self) -> Params | None:
        """The blocks of the folder; a teacher's come from the run that trained it."""
        return None if self.weights is None else {self.own: read_blocks(self.weights, self.base)}

    @property
    def own(self) -> str:
        """Name of what is trained."""
        return STUDENT if self.teacher else TEACHER


@dataclass(frozen=True)
class SLMRecModel(Model):
    """`SLMRec` built for a catalog."""

    config: SLMRec
    network: Network
    teacher: Network | None
    stats: ItemStats

    @property
    def notes(self) -> dict[str, Any]:
        return {"backbone": backbone(self.config.base, self.config.weights)}

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        (width,), config = self.stats.columns[self.config.vectors], self.config
        params = {config.own: self.network.init(key, width)}
        if self.teacher is None:
            return params
        one, two = jax.random.split(jax.random.fold_in(key, 1))
        params[TEACHER] = self.teacher.init(one, width)
        if config.parts > 1:
            shape = (config.parts - 1, config.base.width, width)
            params["heads"] = jax.nn.initializers.lecun_normal(1, 2, batch_axis=0)(two, shape)
        return params

    def states(
        self, network: Network, params: Params, source: Batch | Queries, items: Items
    ) -> tuple[Float[Array, "b l d"], ...]:
        """Normed states before the first block and after each."""
        table = items[self.config.vectors]
        rows = TokenRows(source.items, source.segments, source.positions)
        return network(params, lookup(table, items.rows(source.items)), rows)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, weights = self.config, batch.weights
        drawn, table = jax.random.key(0) if key is None else key, items[config.vectors]
        weight, own = jnp.sum(weights), params[config.own]
        states = self.states(self.network, own, batch, items)

        def cross(hidden: Float[Array, "b l v"]) -> Array:
            return config.loss(hidden.astype(jnp.float32), table, None, batch, drawn, self.stats)

        sums = {"objective": (cross(states[-1] @ own["out"]), weight)}
        factors = {"objective": 1.0, "direction": config.distil, "distance": config.distance}
        factors["supervision"] = config.supervise
        if self.teacher is not None:
            taught = jax.lax.stop_gradient(self.states(self.teacher, params[TEACHER], batch, items))
            pairs = [(_part(states, i, config.parts), _part(taught, i, config.parts)) for i in range(config.parts)]
            for name, apart in (("direction", _angle), ("distance", _distance)):
                if factors[name]:
                    sums[name] = (sum((jnp.sum(weights * apart(*pair)) for pair in pairs), jnp.zeros(())), weight)
            if config.supervise and config.parts > 1:
                ends = (cross(pairs[i][0] @ params["heads"][i]) for i in range(config.parts - 1))
                sums["supervision"] = (sum(ends, jnp.zeros(())), weight)
        loss = sum(factors[name] * total for name, (total, _) in sums.items()) / jnp.maximum(weight, 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        own, leave = params[self.config.own], self.config.leave
        states = self.states(self.network, own, queries, items)
        users = take_position(states[-1 if leave is None else leave], queries.last) @ own["out"]
        return DotProduct(users.astype(jnp.float32), items[self.config.vectors], items.size, start=items.start)

    def sharding_rules(self) -> Rules:
        return [("(^|/)(into|out|heads)$", ()), *SHARDING_RULES, (".*", ())]


def _part(states: tuple[Array, ...], number: int, parts: int) -> Float[Array, "b l d"]:
    """States after part `number`, from 0, of so many equal parts of the blocks."""
    return states[(len(states) - 1) // parts * (number + 1)].astype(jnp.float32)


def _angle(ours: Float[Array, "b l d"], theirs: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    lengths = jnp.sqrt(jnp.sum(ours**2, axis=-1) * jnp.sum(theirs**2, axis=-1) + 1e-12)
    return 1 - jnp.sum(ours * theirs, axis=-1) / lengths


def _distance(ours: Float[Array, "b l d"], theirs: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    return jnp.sqrt(jnp.sum((ours - theirs) ** 2, axis=-1) + 1e-12)

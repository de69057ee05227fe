"""The real training step and the real ranking of a configuration, compiled for devices that need not be there.

Nothing is allocated: parameters, optimiser state, batches and the catalog are shapes with layouts. Of the dataset only
its size counts, so a catalog that does not exist yet can be planned for.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.config import RunConfig
from recjax.data.batches.loader import Loader, open_data
from recjax.data.batches.mixture import Mixture
from recjax.data.batches.views import Batch, Queries
from recjax.data.features.feature import Feature
from recjax.data.items import CODES, DENSITY, KNOWN, VECTORS, Items, Relation, padded_rows
from recjax.data.splits import Histories
from recjax.evaluate.evaluator import Evaluator
from recjax.evaluate.ranking import trace_ranking
from recjax.models.model import ItemStats, Model
from recjax.text.encoder import SentenceEncoder
from recjax.text.folder import read_folder
from recjax.text.hub import find_folder
from recjax.text.lm.encoder import LanguageModelEncoder
from recjax.text.space import TextSpace
from recjax.tokenizers.tokenizer import planned_sizes
from recjax.train.catalogs import text_space
from recjax.train.loop import check_parts
from recjax.train.state import TrainState, abstract_start, start_function
from recjax.train.step import make_train_step
from recjax.train.task import ranked_part
from recjax.typing import DATA_AXIS, MODEL_AXIS, InputError

STEPS = 100_000
"""Length of the run for the schedule, where the recipe counts in epochs; it changes no cost."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Arguments of the programs, as shapes with layouts.

    Attributes:
        model: of the catalog.
        state: of training.
        batch: of a step.
        queries: of a batch of users to rank for.
        targets: items to rank.
        items: that a step reads.
        ranked: the same with the columns that the model adds for ranking.
    """

    model: Model
    state: TrainState
    batch: Batch
    queries: Queries
    targets: Any
    items: Items
    ranked: Items


def count_items(config: RunConfig) -> int:
    """Items of the recipe's datasets, which must be there for that."""
    data = config.data
    opened = data.open() if isinstance(data, Mixture) else [open_data(data)]
    return sum(ranked_part(config, dataset).n_items for dataset, _ in opened)


def abstract_inputs(config: RunConfig, items: int, mesh: Mesh, text_width: int | None = None) -> Inputs:
    """The shapes of a run on a catalog of `items` items; call it without a mesh.

    Args:
        config: of the run.
        items: catalog size.
        mesh: to lay them out on.
        text_width: coordinates of a sentence encoder's vectors, where its folder is not here to say.

    Raises:
        InputError: a size that the mesh does not divide, or that the configuration does not say.
    """
    features, sizes = _features(config, items, mesh, text_width)
    # No counts are known; a view of a single number, so that a catalog of any size takes no memory here.
    counts = np.broadcast_to(np.int64(1), (items + 1,))
    stats = ItemStats(items, counts, features.row_shapes, sizes.get(CODES, ()), sizes)
    model: Model = config.model.build(stats)
    batch, queries, targets = _batches(config, items, mesh)
    check_parts(config.data.rows, config.train.parts, mesh)
    with jax.set_mesh(mesh):
        optimiser = config.optim.build(_steps(config), model.row_tables)
        start = start_function(model, optimiser, ema=config.train.ema is not None, freeze=config.train.freeze)
        state = abstract_start(start, model, optimiser, batch, features, mesh, shard=config.mesh.shard_state)
        ranked = _prepared(model, state.evaluated, features, mesh)
    return Inputs(model, state, batch, queries, targets, features, ranked)


def trace_training(config: RunConfig, inputs: Inputs, mesh: Mesh) -> jax.stages.Traced:
    """The step that `recjax train` would run."""
    total = _steps(config)
    step: Any = make_train_step(
        inputs.model,
        config.optim.build(total, inputs.model.row_tables),
        accumulate=config.train.parts,  # host devices stand for others, which take a batch whole
        ema=config.train.ema,
        rate=config.optim.rate(total),
        shardings=(jax.tree.map(lambda leaf: leaf.sharding, inputs.state), NamedSharding(mesh, PartitionSpec())),
        shard=config.mesh.shard_state,
        freeze=config.train.freeze,
    )
    return step.trace(inputs.state, inputs.batch, inputs.items)


def trace_evaluation(config: RunConfig, inputs: Inputs) -> jax.stages.Traced:
    """The ranking of a batch of users that `recjax evaluate` would run."""
    params, k = inputs.state.evaluated, config.evaluators[0].k
    return trace_ranking(inputs.model, params, inputs.queries, inputs.ranked, inputs.targets, k)


def _steps(config: RunConfig) -> int:
    return config.train.steps or max(STEPS, config.optim.warmup_steps + 1)


def _features(
    config: RunConfig, items: int, mesh: Mesh, text_width: int | None
) -> tuple[Items, dict[str, tuple[int, ...]]]:
    """Items with the features of the recipe, and the vocabulary size of each slot of columns of codes."""

    def array(dtype: Any, *shape: int) -> Any:
        axes = (MODEL_AXIS, *[None] * (len(shape) - 1)) if shape else ()
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    rows = padded_rows(items + 1, mesh.shape[MODEL_AXIS])
    found, sizes = Items(array(jnp.int32), array(jnp.int32)), {}
    if (space := text_space(config)) is not None:
        sizes[CODES] = () if config.tokenizer is None else planned_sizes(config.tokenizer)
        columns = {
            VECTORS: array(jnp.float32, rows, _width(space, text_width)),
            CODES: array(jnp.int32, rows, len(sizes[CODES])),
            KNOWN: array(jnp.bool_, rows),
            DENSITY: array(jnp.float32, rows),
        }
        found = found.adding(columns)
    sizes |= {name: own for name, feature in config.items.items() if (own := feature.sizes({}))}
    return found.adding({name: _feature(feature, rows, array) for name, feature in config.items.items()}), sizes


def _prepared(model: Model, params: Any, items: Items, mesh: Mesh) -> Items:
    """The items as the model ranks them, see `recjax.evaluate.ranking.prepared`; arrays with a row for each item lie
    where the items' rows do."""
    rows = {column.shape[0] for column in items.columns.values()}

    def laid_out(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        axes = (MODEL_AXIS,) if x.shape and x.shape[0] in rows else ()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    return replace(items, prepared=jax.tree.map(laid_out, jax.eval_shape(model.prepare, params, items)))


def _feature(feature: Feature, rows: int, array: Any) -> Any:
    """Shape of a column or a relation."""
    shape = feature.shape()
    if isinstance(shape, int):
        return Relation(array(jnp.int32, rows, shape), array(jnp.float32, rows, shape))
    return array(feature.dtype, rows, *shape)


def _width(space: TextSpace, given: int | None) -> int:
    """Coordinates of an item's vector."""
    total = 0
    for channel in space.channels:
        sentences = isinstance(channel.encoder, SentenceEncoder)
        if given is not None and (sentences or isinstance(channel.encoder, LanguageModelEncoder)):
            total += given
        else:
            try:
                found = read_folder(find_folder(channel.encoder.folder)).module.sizes if sentences else channel.encoder
                total += found.width
            except InputError as error:
                raise InputError(f"{error}. --text-width says how many coordinates its vectors have") from None
    return total


def _batches(config: RunConfig, items: int, mesh: Mesh) -> tuple[Batch, Queries, Any]:
    """Shapes of a batch and of the longest queries, as the recipe's own view makes them of a user with all lengths."""
    data, rows = config.data.on(config.data.dataset), NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    if data.rows % mesh.shape[DATA_AXIS]:
        raise InputError(
            f"data.rows = {data.rows} cannot be divided by the data axis of {mesh.shape[DATA_AXIS]} devices"
        )
    length = data.view.max_length + 2
    history = Histories.concatenated(
        np.array([length]), np.ones(length, np.int32), np.arange(length), np.zeros(1, np.int32)
    )
    relations = {name: shape for name, feature in config.items.items() if isinstance(shape := feature.shape(), int)}
    linked = {name: np.broadcast_to(np.int32(0), (items + 1, count)) for name, count in relations.items()}
    loader = Loader(history, data.view, 1, data.row_length, 0, n_items=items, packed=data.pack, relations=linked)
    batch = loader.host_batch(0)
    queries = data.view.queries(history, data.view.max_length, items)
    # Histories are masked whole, and are not much longer than what the model sees of them.
    evaluator: Evaluator = config.evaluators[0]
    queries = replace(
        queries, seen=np.zeros((1, data.view.max_length if evaluator.mask_seen == "history" else 1), np.int32)
    )
    users = -(-evaluator.users_per_batch // mesh.shape[DATA_AXIS]) * mesh.shape[DATA_AXIS]

    def spread(count: int, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype, sharding=rows), tree)

    targets = spread(users, np.zeros(1, np.int32))
    return spread(data.rows, batch), spread(users, queries), targets

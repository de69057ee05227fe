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
from recjax.data.item_table import ItemTable, padded_rows
from recjax.data.loader import Loader, open_data
from recjax.data.mixture import Mixture
from recjax.data.splits import Histories
from recjax.data.views import Batch, Queries
from recjax.evaluate.ranking import lower_ranking
from recjax.models.model import ItemStats, Model
from recjax.text.encoder import SentenceEncoder
from recjax.text.folder import read_folder
from recjax.text.hub import find_folder
from recjax.text.space import TextSpace
from recjax.train.catalogs import text_space
from recjax.train.loop import check_parts
from recjax.train.state import TrainState, abstract_start, row_tables
from recjax.train.step import make_train_step
from recjax.typing import DATA_AXIS, MODEL_AXIS, InputError

STEPS = 100_000
"""Length of the run for the schedule, where the recipe counts in epochs; it changes no cost."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the programs take, as shapes with layouts.

    Attributes:
        model: of the catalog.
        state: of training.
        batch: of a step.
        queries: of a batch of users to rank for.
        targets: what is ranked.
    """

    model: Model
    state: TrainState
    batch: Batch
    queries: Queries
    targets: Any


def count_items(config: RunConfig) -> int:
    """Items of the recipe's datasets, which must be there for that."""
    data = config.data
    opened = data.open() if isinstance(data, Mixture) else [open_data(data)]
    return sum(dataset.n_items for dataset, _ in opened)


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
    catalog, sizes = _catalog(config, items, mesh, text_width)
    # No counts are known; a view of a single number, so that a catalog of any size takes no memory here.
    counts = np.broadcast_to(np.int64(1), (items + 1,))
    model: Model = config.model.build(ItemStats(items, counts, catalog, sizes))
    batch, queries, targets = _batches(config, items, mesh, model.catalog)
    check_parts(config.data.rows, config.train.accumulate, mesh)
    with jax.set_mesh(mesh):
        optimiser = config.optim.build(_steps(config), row_tables(model))
        state = abstract_start(
            model,
            optimiser,
            batch,
            mesh,
            ema=config.train.ema is not None,
            shard=config.mesh.shard_state,
            freeze=config.train.freeze,
        )
        queries = replace(queries, catalog=_prepared(model, state.evaluated))
    return Inputs(model, state, batch, queries, targets)


def lower_training(config: RunConfig, inputs: Inputs, mesh: Mesh) -> jax.stages.Lowered:
    """The step that `recjax train` would run."""
    total = _steps(config)
    step: Any = make_train_step(
        inputs.model,
        config.optim.build(total, row_tables(inputs.model)),
        accumulate=config.train.accumulate,
        ema=config.train.ema,
        rate=config.optim.rate(total),
        shardings=(jax.tree.map(lambda leaf: leaf.sharding, inputs.state), NamedSharding(mesh, PartitionSpec())),
        shard=config.mesh.shard_state,
        freeze=config.train.freeze,
    )
    return step.lower(inputs.state, inputs.batch)


def lower_evaluation(config: RunConfig, inputs: Inputs) -> jax.stages.Lowered:
    """The ranking of a batch of users that `recjax evaluate` would run."""
    return lower_ranking(inputs.model, inputs.state.evaluated, inputs.queries, inputs.targets, config.evaluate.k)


def _steps(config: RunConfig) -> int:
    return config.train.steps or max(STEPS, config.optim.warmup_steps + 1)


def _catalog(
    config: RunConfig, items: int, mesh: Mesh, text_width: int | None
) -> tuple[ItemTable | None, tuple[int, ...]]:
    """Texts' vectors and codes of a catalog, by the recipe's sizes; None for a model that reads none."""
    space = text_space(config)
    if space is None:
        return None, ()
    sizes = () if config.tokenizer is None else tuple(config.tokenizer.sizes)
    if config.tokenizer is not None and config.tokenizer.collisions == "suffix":
        # A slot more, as large as the largest bucket of items with equal codes, which only the texts can tell.
        sizes += (max(sizes),)
    rows = padded_rows(items + 1, mesh.shape[MODEL_AXIS])

    def array(dtype: Any, *shape: int) -> Any:
        axes = (MODEL_AXIS, *[None] * (len(shape) - 1)) if shape else ()
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    columns = (array(jnp.float32, rows, _width(space, text_width)), array(jnp.int32, rows, len(sizes)))
    known, density = array(jnp.bool_, rows), array(jnp.float32, rows)
    return ItemTable(*columns, known, density, array(jnp.int32), array(jnp.int32)), sizes


def _prepared(model: Model, params: Any) -> ItemTable | None:
    """The catalog as the model ranks it, see `recjax.evaluate.ranking.prepared`."""
    catalog: Any = model.catalog
    if catalog is None or not hasattr(model, "prepare"):
        return catalog
    found: Any = jax.eval_shape(model.prepare, params, catalog).represented  # pyright: ignore[reportAttributeAccessIssue]
    like = jax.ShapeDtypeStruct(found.shape, found.dtype, sharding=catalog.vectors.sharding)
    return replace(catalog, represented=like)


def _width(space: TextSpace, given: int | None) -> int:
    """Coordinates of an item's vector."""
    total = 0
    for channel in space.channels:
        if not isinstance(channel.encoder, SentenceEncoder):
            total += channel.encoder.width
        elif given is not None:
            total += given
        else:
            try:
                total += read_folder(find_folder(channel.encoder.folder)).module.sizes.width
            except InputError as error:
                raise InputError(f"{error}. --text-width says how many coordinates its vectors have") from None
    return total


def _batches(config: RunConfig, items: int, mesh: Mesh, catalog: ItemTable | None) -> tuple[Batch, Queries, Any]:
    """Shapes of a batch and of the longest queries, as the recipe's own view makes them of a user with all lengths."""
    data, rows = config.data, NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    if data.rows % mesh.shape[DATA_AXIS]:
        raise InputError(
            f"data.rows = {data.rows} cannot be divided by the data axis of {mesh.shape[DATA_AXIS]} devices"
        )
    length = data.view.max_length + 2
    history = Histories(
        np.array([0, length]), np.ones(length, np.int32), np.zeros(length, np.int64), np.zeros(1, np.int32)
    )
    loader = Loader(history, data.view, 1, data.row_length, 0, n_items=items)
    batch = loader.host_batch(0)
    queries = data.view.queries(history, data.view.max_length, items)
    # Histories are masked whole, and are not much longer than what the model sees of them.
    queries = replace(
        queries, seen=np.zeros((1, data.view.max_length if config.evaluate.mask_seen == "history" else 1), np.int32)
    )
    users = -(-config.evaluate.users_per_batch // mesh.shape[DATA_AXIS]) * mesh.shape[DATA_AXIS]

    def spread(count: int, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype, sharding=rows), tree)

    targets = spread(users, np.zeros(1, np.int32))
    return (
        replace(spread(data.rows, batch), catalog=catalog),
        replace(spread(users, queries), catalog=catalog),
        targets,
    )

"""From a configuration and a topology to a plan."""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from recjax.config import RunConfig
from recjax.nn.groups import split_frozen
from recjax.plan.advice import nearest
from recjax.plan.estimate import Estimate, estimate, local_bytes
from recjax.plan.program import Inputs, abstract_inputs, count_items, trace_evaluation, trace_training
from recjax.plan.topology import Topology, find_topology
from recjax.typing import MESH_AXES, InputError


@dataclass(frozen=True)
class Advice:
    """The advice that would fit.

    Attributes:
        settings: to change; none where nothing that was tried fits.
        total: bytes in use at once with them.
    """

    settings: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class Plan:
    """Needs of a run.

    Attributes:
        name: of the configuration.
        topology: as asked for.
        chip: name of a device.
        mesh: devices along each axis.
        items: catalog size.
        rows: of a global batch.
        users: ranked at a time.
        training: of a step.
        ranking: of a batch of users, or None.
        advice: where training does not fit.
    """

    name: str
    topology: str
    chip: str
    mesh: dict[str, int]
    items: int
    rows: int
    users: int
    training: Estimate
    ranking: Estimate | None
    advice: Advice | None

    @property
    def fits(self) -> bool:
        return self.training.fits and (self.ranking is None or self.ranking.fits)


def plan(
    config: RunConfig,
    topology: str,
    *,
    slices: int = 1,
    items: int | None = None,
    text_width: int | None = None,
    ranking: bool = True,
    advise: bool = True,
) -> Plan:
    """Compiles a configuration's step and ranking for a topology; no parameter is ever allocated.

    Args:
        config: of the run.
        topology: see `recjax.plan.topology.find_topology`.
        slices: slices of it.
        items: catalog size; by default that of the recipe's datasets, which must then be there.
        text_width: coordinates of a sentence encoder's vectors, where its folder is not here to say.
        ranking: compile the ranking too.
        advise: look for a setting that fits where the step does not.

    Raises:
        InputError: topology, mesh, catalog and batch do not go together.
    """
    found = find_topology(topology, slices)
    mesh = _mesh(config, found)
    items = count_items(config) if items is None else items
    if items < 1:
        raise InputError(f"--items {items}: expected 1 or more")
    inputs = abstract_inputs(config, items, mesh, text_width)
    training = _training(config, inputs, mesh, found)
    ranked, advice = None, None
    if ranking:
        with jax.set_mesh(mesh):
            lowered = trace_evaluation(config, inputs).lower()
        held = {
            "parameters": inputs.state.evaluated,
            "catalog": inputs.ranked,
            "queries": (inputs.queries, inputs.targets),
        }
        ranked = estimate(lowered, held, mesh, found.chip)
    if advise and not training.fits:

        def attempt(changed: RunConfig) -> Estimate | int:
            mesh = _mesh(changed, found)
            inputs = abstract_inputs(changed, items, mesh, text_width)
            known = local_bytes((inputs.state, inputs.batch, inputs.items))
            return known if known > found.chip.memory else _training(changed, inputs, mesh, found)

        better = nearest(config, attempt)
        advice = Advice((), 0) if better is None else Advice(tuple(better[0]), better[1].total)
    sizes: dict[str, int] = dict(zip(MESH_AXES, mesh.devices.shape, strict=True))
    users = inputs.targets.shape[0]
    return Plan(
        config.name, found.name, found.chip.name, sizes, items, config.data.rows, users, training, ranked, advice
    )


def _mesh(config: RunConfig, topology: Topology) -> Mesh:
    try:
        return config.mesh.build(topology.devices)
    except InputError as error:
        raise InputError(f"--topology {topology.name} has {len(topology.devices)} devices: {error}") from None


def _training(config: RunConfig, inputs: Inputs, mesh: Mesh, topology: Topology) -> Estimate:
    with jax.set_mesh(mesh):
        lowered = trace_training(config, inputs, mesh).lower()
    state = inputs.state
    held = {
        "parameters": state.params,
        "optimiser": state.opt_state,
        "average": state.ema,
        "catalog": inputs.items,
        "batch": (inputs.batch, state.step, state.key),
        "gradients": split_frozen(state.params, config.train.freeze)[0],
    }
    return estimate(lowered, held, mesh, topology.chip)

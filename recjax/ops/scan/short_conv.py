"""The short causal convolution of recurrent blocks: each channel mixes its last few events with weights of its own."""

from typing import Any

import jax
import jax.numpy as jnp

from recjax.ops.mesh_axes import axis_size
from recjax.ops.scan.time_axis import time_layout
from recjax.typing import SEQ_AXIS, Array, Bool, Float, InputError, Int


def short_conv(
    x: Float[Array, "b l d"],
    kernel: Float[Array, "w d"],
    bias: Float[Array, " d"] | None = None,
    *,
    starts: Bool[Array, "b l"] | None = None,
    state: Float[Array, "b m d"] | None = None,
    events: Int[Array, " b"] | None = None,
) -> tuple[Float[Array, "b l d"], Float[Array, "b m d"] | None]:
    """y_t = sum_j kernel[j] * x_{t-j} + bias, over events of the same history alone.

    What stands before a history's first event counts as 0, by selection. Sums are float32. Where the mesh has a `seq`
    axis that divides the positions, and no state is given, each device takes the last w - 1 positions of its neighbour.

    Args:
        x: inputs.
        kernel: weights; `kernel[0]` that of the event itself.
        bias: added to every output.
        starts: first positions of histories. None = rows are one history each and nothing precedes them.
        state: the m = w - 1 inputs before the first position, oldest first, where rows are histories that go on.
        events: with a state, how many of a row's positions are events; they stand on the left. None = all.

    Returns:
        Outputs in the type of `x`; and, given a state, the last m inputs up to each row's last event, in its type.

    Raises:
        InputError: shapes that do not fit each other.
    """
    reach = kernel.shape[0] - 1
    if kernel.shape[1] != x.shape[2] or (state is not None and state.shape[1:] != (reach, x.shape[2])):
        found = "" if state is None else f" and a state of shape {state.shape}"
        raise InputError(f"a kernel of shape {kernel.shape}{found} fits no inputs of shape {x.shape}")
    flags = jnp.zeros(x.shape[:2], bool) if starts is None else starts
    if state is not None:
        before = (state.astype(x.dtype), jnp.zeros(state.shape[:2], bool))
        return _mixed(x, kernel, bias, flags, before), _remembered(x, flags, state, events)
    layout = time_layout(x)
    if not layout.sharded or x.shape[1] // axis_size(SEQ_AXIS) < reach:
        nothing = (jnp.zeros((x.shape[0], reach, x.shape[2]), x.dtype), jnp.zeros((x.shape[0], reach), bool))
        return _mixed(x, kernel, bias, flags, nothing), None
    along = layout.along(1)
    in_specs = (along, layout.whole, None if bias is None else layout.whole, along)
    return layout.island(_mixed, in_specs, along)(x, kernel, bias, flags), None


def _mixed(x: Array, kernel: Array, bias: Array | None, starts: Array, before: Any = None) -> Array:
    """Outputs, given the inputs and start flags `before` the first position, or else those of the device before."""
    width, length = kernel.shape[0], x.shape[1]
    if before is None:
        before = _from_the_left((x[:, length - width + 1 :], starts[:, length - width + 1 :]))
    inputs = jnp.concatenate([before[0], x], axis=1)
    run = jnp.cumsum(jnp.concatenate([before[1], starts], axis=1), axis=1, dtype=jnp.int32)
    total = jnp.zeros(x.shape, jnp.float32) if bias is None else jnp.broadcast_to(bias.astype(jnp.float32), x.shape)
    for back in range(width):
        place = slice(width - 1 - back, width - 1 - back + length)
        same = run[:, place] == run[:, width - 1 :]
        total += jnp.where(same[..., None], inputs[:, place].astype(jnp.float32) * kernel[back], 0)
    return total.astype(x.dtype)


def _from_the_left(arrays: Any) -> Any:
    """Positions of the device before this one; zeros on the first."""
    pairs = [(device, device + 1) for device in range(jax.lax.axis_size(SEQ_AXIS) - 1)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, SEQ_AXIS, pairs), arrays)


def _remembered(x: Array, starts: Array, state: Array, events: Array | None) -> Array:
    """The last inputs up to each row's last event."""
    reach, length = state.shape[1], x.shape[1]
    events = jnp.full(x.shape[0], length) if events is None else events
    inputs = jnp.concatenate([state, x.astype(state.dtype)], axis=1)
    run = jnp.cumsum(jnp.concatenate([jnp.zeros(state.shape[:2], bool), starts], axis=1), axis=1, dtype=jnp.int32)
    places = events[:, None] + jnp.arange(reach)
    # A history that begins among these positions has nothing before it.
    latest = jnp.take_along_axis(run, events[:, None] + reach - 1, axis=1)
    same = jnp.take_along_axis(run, places, axis=1) == latest
    return jnp.where(same[..., None], jnp.take_along_axis(inputs, places[..., None], axis=1), 0)

"""Generation and likelihood of texts, each one compiled program."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recjax.limits import COUNT, above, require
from recjax.mixers.mixer import SeqContext
from recjax.ops.attention.pairs import MASKED
from recjax.ops.items.embedding import take_position
from recjax.text.lm.decoder import Caches, Decoder, context_of
from recjax.text.rows import TokenRows
from recjax.typing import Array, Bool, Float, InputError, Int, Params

CHUNK = 2**24
"""Most logits at a time in `log_likelihoods`."""


@dataclass(frozen=True)
class Sampling:
    """Rule by which the next token is drawn.

    Attributes:
        temperature: by which logits are divided.
        most: only so many of the likeliest tokens are drawn from (Fan et al. 2018); None for all.
        share: of those, only the likeliest that reach this share of the probability together (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    most: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        require(self, temperature=above(0), most=COUNT, share=above(0, most=1))


class Generated(NamedTuple):
    """Texts that were generated.

    Attributes:
        tokens: of each row, those that follow its prompt, 0 from the token on that ended it.
        lengths: how many there are, without the one that ended it.
    """

    tokens: Int[Array, "b n"]
    lengths: Int[Array, " b"]


class _Progress(NamedTuple):
    """Tokens so far, and what the next one follows from."""

    number: Int[Array, ""]
    tokens: Int[Array, "b n"]
    lengths: Int[Array, " b"]
    running: Bool[Array, " b"]
    logits: Float[Array, "b v"]
    positions: Int[Array, " b"]
    caches: Caches


@partial(jax.jit, static_argnames=("decoder", "new", "stop", "sampling"))
def generate(
    decoder: Decoder,
    params: Params,
    prompts: TokenRows,
    vectors: Float[Array, "b n d"] | None = None,
    key: Array | None = None,
    *,
    new: int,
    stop: tuple[int, ...] = (),
    sampling: Sampling | None = None,
) -> Generated:
    """Up to `new` tokens after each prompt; one program, which ends early where all rows have ended.

    Args:
        decoder: the network.
        params: its parameters.
        prompts: one in each row, at its left.
        vectors: those that stand in place of tokens.
        key: for sampling.
        new: most tokens of a row.
        stop: tokens that end a text.
        sampling: how tokens are drawn; None for the likeliest each time.

    Raises:
        InputError: more tokens than positions that the model was trained for.
    """
    rows, length = prompts.tokens.shape
    if length + new > (most := decoder.config.positions):
        raise InputError(f"prompts of {length} tokens and {new} new ones are more than the model's {most:,} positions")

    def run(method: str, *inputs: Any) -> Any:
        return decoder.apply({"params": params}, *inputs, method=method)

    lengths = jnp.sum(prompts.segments > 0, axis=1, dtype=jnp.int32)
    states, caches = run("begin", run("embed", prompts, vectors), prompts, length + new)
    start = _Progress(
        jnp.zeros((), jnp.int32),
        jnp.zeros((rows, new), jnp.int32),
        jnp.zeros(rows, jnp.int32),
        jnp.ones(rows, bool),
        run("logits", take_position(states, jnp.maximum(lengths - 1, 0))),
        jnp.max(jnp.where(prompts.segments > 0, context_of(prompts).positions, -1), axis=1),
        caches,
    )

    def advance(progress: _Progress) -> _Progress:
        number = progress.number
        token = chosen(progress.logits, None if key is None else jax.random.fold_in(key, number), sampling)
        running = progress.running & ~jnp.isin(token, jnp.array(stop, jnp.int32))
        tokens = progress.tokens.at[:, number].set(jnp.where(running, token, 0))
        position = progress.positions + 1
        one = TokenRows(token[:, None], running[:, None].astype(jnp.int32), position[:, None])
        states, caches = run("step", run("embed", one), SeqContext(one.segments, position[:, None]), progress.caches)
        logits = run("logits", states[:, 0])
        return _Progress(number + 1, tokens, progress.lengths + running, running, logits, position, caches)

    # The last token's logits are of no use; computing them keeps the loop free of branches.
    end = jax.lax.while_loop(lambda progress: (progress.number < new) & jnp.any(progress.running), advance, start)
    return Generated(end.tokens, end.lengths)


def chosen(logits: Float[Array, "b v"], key: Array | None = None, sampling: Sampling | None = None) -> Int[Array, " b"]:
    """A token of each row: the likeliest one without a key or `sampling`."""
    if sampling is None or key is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.most is None and sampling.share == 1.0:
        return jax.random.categorical(key, logits).astype(jnp.int32)
    best, ids = jax.lax.top_k(logits, min(sampling.most or logits.shape[-1], logits.shape[-1]))
    probabilities = jax.nn.softmax(best, axis=-1)
    # A token counts where those before it have not reached the share; the first always does.
    counts = jnp.cumsum(probabilities, axis=-1) - probabilities < sampling.share
    drawn = jax.random.categorical(key, jnp.where(counts, best, MASKED))
    return jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)


@partial(jax.jit, static_argnames="decoder")
def log_likelihoods(
    decoder: Decoder, params: Params, rows: TokenRows, vectors: Float[Array, "b n d"] | None = None
) -> Float[Array, "b l"]:
    """Natural logarithm of the probability of each token, given those before it in its text; 0 for the first of a text.

    Logits are made of a chunk of positions at a time, in the backward pass too.

    Args:
        decoder: the network.
        params: its parameters.
        rows: texts.
        vectors: those that stand in place of tokens; the probability of the tokens they replace means nothing.
    """

    def run(method: str, *inputs: Any) -> Any:
        return decoder.apply({"params": params}, *inputs, method=method)

    states = run("states", run("embed", rows, vectors), rows)[:, :-1]
    targets = rows.tokens[:, 1:]
    length = targets.shape[1]
    size = max(min(CHUNK // (len(targets) * decoder.config.vocabulary), length), 1)
    fill = ((0, 0), (0, -length % size))
    targets = jnp.pad(targets, fill)
    states = jnp.pad(states, (*fill, (0, 0)))

    @jax.checkpoint
    def chunk(part: tuple[Array, Array]) -> Float[Array, "b c"]:
        logits = run("logits", part[0])
        picked = jnp.take_along_axis(logits, part[1][..., None], axis=-1)[..., 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    def chunks(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    found = jnp.moveaxis(jax.lax.map(chunk, (chunks(states), chunks(targets))), 0, 1)
    found = found.reshape(len(targets), -1)[:, :length]
    follows = (rows.segments[:, 1:] == rows.segments[:, :-1]) & (rows.segments[:, 1:] > 0)
    return jnp.pad(jnp.where(follows, found, 0.0), ((0, 0), (1, 0)))

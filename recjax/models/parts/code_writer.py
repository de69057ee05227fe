"""A language model that reads and writes texts of item codes and words."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.models.parts.code_text import CodeText, Part, places, text_goals, together
from recjax.nn.lora import beside, joined
from recjax.ops.items.embedding import take_position
from recjax.text.lm.decoder import Caches, Decoder
from recjax.text.rows import TokenRows
from recjax.typing import Array, Bool, Float, Int, Params

LANGUAGE, OWN = "language", "own"
"""Parameters: of the decoder, and vectors of codes and marks, which are those of their logits too."""


class Writing(NamedTuple):
    """Memory of prefixes in a search.

    Attributes:
        caches: of what stands before the item, one for all prefixes of a query.
        lengths: tokens of it, int32 [q, 1].
        tokens: of the item so far, int32 [q, w, t].
    """

    caches: Caches
    lengths: Array
    tokens: Array


@dataclass(frozen=True)
class CodeWriter:
    """A decoder with a table of its own for tokens that are no words.

    With adapters, the decoder's weights are frozen and these are trained beside that table; without, all is trained.

    Attributes:
        decoder: of words; with adapters, or without.
        text: numbering of tokens.
        scale: factor of that table's vectors where they are read.
    """

    decoder: Decoder
    text: CodeText
    scale: float = 1.0

    def init(self, key: Array, rows: int) -> Params:
        """Random parameters; `rows` are those of a batch, which the mesh divides."""
        one, two, three = jax.random.split(key, 3)
        lone = TokenRows(*(jnp.ones((rows, 2), jnp.int32),) * 2)
        base: Any = Decoder(self.decoder.config).init(one, lone)["params"]
        language = base if self.decoder.lora is None else beside(base, self.decoder, two, lone)
        own = jax.nn.initializers.normal(0.02)(three, (self.text.own, self.decoder.config.width))
        return {LANGUAGE: language, OWN: own}

    def states(self, params: Params, texts: tuple[Part, ...], begins: Int[Array, "b 1"]) -> list[Float[Array, "b m d"]]:
        """States of texts in one pass, which do not see each other, but that the second continues the first.

        Args:
            params: parameters.
            texts: of each row, the first from the left without holes.
            begins: tokens of the first that the second sees.
        """
        whole = together(*texts)
        numbers = jnp.concatenate([jnp.full(part.tokens.shape[1], number) for number, part in enumerate(texts)])
        place = jnp.arange(len(numbers))
        own, past = numbers[:, None] == numbers, (numbers[:, None] == 1) & (numbers == 0)
        allowed = (own | (past & (place < begins)[:, None])) & whole.there[:, None] & (place <= place[:, None])
        allowed |= place == place[:, None]  # padding sees itself
        turns = [places(part) + (begins if number == 1 else 0) for number, part in enumerate(texts)]
        rows = TokenRows(whole.tokens, whole.there.astype(jnp.int32), jnp.concatenate(turns, axis=1), allowed=allowed)
        states = self._run(params, lambda decoder: decoder.states(self._inputs(decoder, params, whole.tokens), rows))
        ends = list(accumulate(part.tokens.shape[1] for part in texts))[:-1]
        return jnp.split(states.astype(jnp.float32), ends, axis=1)

    def code_nats(
        self, params: Params, states: Float[Array, "b *n slots d"], codes: Int[Array, "b *n slots"], weights: Array
    ) -> tuple[Array, Array]:
        """Sum of the nats of items' codes, given the states before each, and how many codes these are."""
        total = jnp.zeros(())
        for slot in range(self.text.slots):
            found = jax.nn.log_softmax(self._code_logits(params, states[..., slot, :], slot))
            own = jnp.take_along_axis(found, codes[..., slot, None], axis=-1)[..., 0]
            total -= jnp.sum(jnp.where(weights > 0, weights * own, 0.0))
        return total, jnp.sum(weights) * self.text.slots

    def word_nats(
        self, params: Params, states: Float[Array, "b k d"], entries: Int[Array, "b t"], weights: Float[Array, " b"]
    ) -> tuple[Array, Array]:
        """The same of texts' words and their ends, given the states before each; k = t + 1."""
        goals, there = text_goals(entries, self.text.words)
        found = jax.nn.log_softmax(self._run(params, lambda decoder: self._word_logits(decoder, params, states)))
        own = jnp.take_along_axis(found, goals[..., None], axis=-1)[..., 0]
        counts = there * weights[:, None]
        return -jnp.sum(jnp.where(counts > 0, counts * own, 0.0)), jnp.sum(counts)

    def read(self, params: Params, prompt: Part, words: int) -> tuple[Caches, Int[Array, " q"], Int[Array, "q t"]]:
        """Caches of prompts and of the likeliest text after each, and its end; their lengths; the text's entries.

        Args:
            params: parameters.
            prompt: from the left without holes.
            words: of the text at most; 0 for none.
        """
        tokens, there = prompt
        lengths, rows = jnp.sum(there, axis=1, dtype=jnp.int32), TokenRows(tokens, there.astype(jnp.int32))

        def first(decoder: Decoder) -> tuple[Array, Caches]:
            return decoder.begin(self._inputs(decoder, params, tokens), rows, tokens.shape[1] + words + 1)

        states, caches = self._run(params, first)
        entries = jnp.zeros((len(lengths), words), jnp.int32)
        if not words:
            return caches, lengths, entries

        def write(number: Array, carried: Any) -> Any:
            state, lengths, caches, running, entries = carried
            word = jnp.argmax(self._run(params, lambda decoder: self._word_logits(decoder, params, state)), axis=-1)
            ends = (word == self.text.words) | (number == words)
            token = jnp.where(ends, self.text.number("end"), self.text.own + word)[:, None]
            entries = entries.at[:, number].set(jnp.where(running & ~ends, word + 1, 0), mode="drop")
            context = SeqContext(running[:, None].astype(jnp.int32), lengths[:, None])

            def following(decoder: Decoder) -> tuple[Array, Caches]:
                return decoder.step(self._inputs(decoder, params, token), context, caches)

            states, caches = self._run(params, following)
            return states[:, 0], lengths + running, caches, running & ~ends, entries

        last = take_position(states, jnp.maximum(lengths - 1, 0))
        start = last, lengths, caches, jnp.ones_like(lengths, bool), entries
        _, lengths, caches, _, entries = jax.lax.fori_loop(0, words + 1, write, start)
        return caches, lengths, entries

    def begin(self, params: Params, prompt: Part, words: int) -> Writing:
        """Memory of what `read` reads and writes, for a search of items after it."""
        caches, lengths, _ = self.read(params, prompt, words)
        caches, lengths = jax.tree.map(lambda x: x[:, None], (caches, lengths))
        return Writing(caches, lengths, jnp.zeros((len(prompt.tokens), 1, 0), jnp.int32))

    def step(
        self, params: Params, cache: Writing, codes: Int[Array, "q w"]
    ) -> tuple[Float[Array, "q w size"], Writing]:
        """Logits of the next slot after the last codes of prefixes.

        All prefixes of a query are one row, and read again as they grow: an item has few codes.
        """
        (rows, width), slot = codes.shape, cache.tokens.shape[2]
        before = jnp.broadcast_to(cache.tokens, (rows, width, slot))
        tokens = jnp.concatenate([before, self.text.codes.following(codes, slot)[..., None]], axis=2)
        prefix, turn = jnp.divmod(jnp.arange(width * (slot + 1)), slot + 1)
        caches: Caches = jax.tree.map(lambda x: x[:, 0], cache.caches)
        held = (jnp.arange(caches[0].room) < cache.lengths)[:, None]
        own = (prefix[:, None] == prefix) & (turn <= turn[:, None])
        both = (held, (rows, len(turn), caches[0].room)), (own, (rows, len(turn), len(turn)))
        allowed: Bool[Array, "q l k"] = jnp.concatenate([jnp.broadcast_to(*each) for each in both], axis=2)
        inputs = self._own(params, tokens.reshape(rows, -1))
        context = SeqContext(jnp.ones((rows, len(turn)), jnp.int32), cache.lengths + turn)
        states = self._run(params, lambda decoder: decoder.branches(inputs, context, allowed, caches))
        states = states.reshape(rows, width, slot + 1, -1)[:, :, -1]
        return self._code_logits(params, states, slot), Writing(cache.caches, cache.lengths, tokens)

    def _run(self, params: Params, function: Callable[[Decoder], Any]) -> Any:
        language = params[LANGUAGE] if self.decoder.lora is None else joined(params[LANGUAGE])
        return self.decoder.apply({"params": language}, method=function)

    def _inputs(self, decoder: Decoder, params: Params, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        words = jnp.maximum(tokens - self.text.own, 0)
        held = decoder.embed(TokenRows(words, jnp.ones_like(words)))
        own = self._own(params, jnp.minimum(tokens, self.text.own - 1))
        return jnp.where((tokens < self.text.own)[..., None], own, held)

    def _own(self, params: Params, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        return (self.scale * params[OWN][tokens]).astype(self.decoder.config.dtype)

    def _code_logits(self, params: Params, states: Float[Array, "*b d"], slot: int) -> Float[Array, "*b size"]:
        first, stop = self.text.codes.span(slot)
        return states.astype(jnp.float32) @ params[OWN][first:stop].T

    def _word_logits(self, decoder: Decoder, params: Params, states: Float[Array, "*b d"]) -> Float[Array, "*b w"]:
        """Of the words and, last, of the end of a text."""
        words = decoder.logits(states)[..., : self.text.words]
        end = states.astype(jnp.float32) @ params[OWN][self.text.number("end")]
        return jnp.concatenate([words, end[..., None]], axis=-1)

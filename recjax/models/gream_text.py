"""GREAM over a Llama-like language model: item codes are tokens beside words, and may follow a reasoning in text.

Hong et al., Generative Reasoning Recommendation via LLMs, 2025; alignment by LC-Rec (Zheng et al., ICDE 2024).
`recjax.models.gream` is the policy step without text.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.decode.scoring import Stepwise
from recjax.decode.trie import device_trie
from recjax.limits import COUNT, SIZE, above, at_least, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.code_text import CodeText, Part, compact, together
from recjax.models.parts.code_writer import LANGUAGE, OWN, CodeWriter
from recjax.models.parts.flat_codes import FlatCodes, check_codes, codes_of
from recjax.models.parts.language_network import backbone, read_blocks
from recjax.models.parts.policy_step import SRPO, SRPOModel
from recjax.models.slmrec import ADAPTED, SMALL
from recjax.models.tiger import TRIE
from recjax.nn.lora import LoRA
from recjax.ops.items.embedding import last_items, table_rows, take_position
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.typing import Array, InputError, Int, Params


@dataclass(frozen=True)
class GREAMText(ModelConfig):
    """A decoder of words and item codes. With h a history of items, each a start and its codes, and [x] a mark:

        direct      h item
        reasoning   h [think] kind [end] ... [want] kind [end] item
        find        title [end] item
        name        item [name] title [end]

    The kinds after [think] are those of the last `memory` items, newest first: the evidence, made by rule, which is
    read and not learned. The wanted kind is the target's in training; a ranking by "reasoning" has the likeliest words
    in its place. The loss is in nats a token, with the codes of all items of `direct` that follow another,

        direct + reason (answer + wanted) + align (find + name)

    where answer and wanted are the codes and the words of `reasoning`, of a row's last target, and find and name align
    codes with the titles of as many items as there are rows, drawn from the whole catalog. The paper has a model of 4
    billion parameters, chains written by another, and prompts in words where marks stand here.

    Codes and marks have a table of their own, tied to their logits. Of a folder the weights are frozen and adapters
    trained; from scratch, all is. The view is `Shifted`, without packing.

    Attributes:
        base: sizes of the language model. Its vocabulary is the rows of a folder's token table; from scratch, 0.
        weights: folder of a language model whose first blocks these are, see `recjax.text.hub.find_folder`; None for a
            network from scratch.
        lora: adapters of the blocks from a folder.
        titles: column of the words of items, by `recjax.data.features.tokens.Tokens`.
        kinds: column of the words of what they are, by the same tokenizer.
        memory: items in the evidence.
        align: weight; with 0 the terms are logged and not learned.
        reason: weight, likewise.
        mode: ranks after the history, or after a reasoning.
        scale: factor of the vectors of codes and marks where they are read: these begin with a deviation of 0.02, and
            blocks from a folder expect that of its words (SmolLM2: 0.14).
        codes: rows of the token table for each slot, whatever the slot's size.
        beam: prefixes kept after each code; None expands every prefix of the catalog.
    """

    ranks_unseen: ClassVar[bool] = True

    base: DecoderConfig = SMALL
    weights: str | None = None
    lora: LoRA = ADAPTED
    titles: str = "titles"
    kinds: str = "kinds"
    memory: int = 3
    align: float = 1.0
    reason: float = 1.0
    mode: Literal["direct", "reasoning"] = "direct"
    scale: float = 1.0
    codes: int = 256
    beam: int | None = 20

    def __post_init__(self) -> None:
        require(self, memory=SIZE, align=at_least(0), reason=at_least(0), scale=above(0), codes=SIZE, beam=COUNT)
        if bool(self.base.vocabulary) == (self.weights is None):
            refuse(self, "base", "sizes with the vocabulary of the folder, or with vocabulary 0 for none")

    def build(self, stats: ItemStats) -> "GREAMTextModel":
        check_codes(type(self).__name__, stats.code_sizes, self.codes)
        sizes = [set(stats.sizes.get(name, ())) for name in (self.titles, self.kinds)]
        if len(set.union(*sizes)) != 1 or not all(sizes):
            raise InputError(
                f"GREAMText reads the columns {self.titles!r} and {self.kinds!r} of each item, words by one tokenizer; "
                'the recipe needs Tokens() of both, with one `folder`, or one `fitted`: ("{title} {categories}",)'
            )
        words = max(sizes[0]) - 1
        rows = self.base.vocabulary or table_rows(words)
        if words > rows:
            refuse(self, "base", f"sizes with a vocabulary of the {words:,} tokens that there are")
        lora = None if self.weights is None else self.lora
        decoder = Decoder(replace(self.base, vocabulary=rows), lora)
        text = CodeText(FlatCodes(stats.code_sizes, self.codes), words)
        return GREAMTextModel(self, CodeWriter(decoder, text, self.scale), stats)

    def given(self) -> Params | None:
        """The folder's blocks and its tables of words."""
        return None if self.weights is None else {LANGUAGE: read_blocks(self.weights, self.base)}


@dataclass(frozen=True)
class GREAMTextModel(Model):
    """`GREAMText` built for a catalog."""

    config: GREAMText
    network: CodeWriter
    stats: ItemStats

    @property
    def text(self) -> CodeText:
        """Numbering of tokens."""
        return self.network.text

    @property
    def packing(self) -> bool:
        return False

    @property
    def notes(self) -> dict[str, Any]:
        found = {"backbone": backbone(self.config.base, self.config.weights), "mode": self.config.mode}
        return found | {"beam": self.config.beam or "exact"}

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        return self.network.init(key, len(batch.items))

    # --- texts

    def history(self, source: Batch | Queries, items: Items) -> Part:
        """The items of each row."""
        return self.text.items(codes_of(items, source.items), source.items > 0)

    def evidence(self, source: Batch | Queries, items: Items) -> Part:
        """The kinds of the last items of each row, newest first, between their marks."""
        recent = last_items(source.items, jnp.sum(source.items > 0, axis=1), self.config.memory)
        kinds, rows = self._words(self.config.kinds, recent, items), len(recent)
        return together(self.text.mark("think", rows), self.text.texts(kinds, recent > 0), self.text.mark("want", rows))

    def _words(self, name: str, ids: Int[Array, "*b"], items: Items) -> Int[Array, "*b t"]:
        return jnp.take(items[name], items.rows(ids), axis=0, mode="clip")

    # --- training

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        sums, config = self.terms(params, batch, items, key), self.config
        factors = {"direct": 1.0, "answer": config.reason, "wanted": config.reason}
        factors |= {"find": config.align, "name": config.align}
        loss = sum(factor * sums[name][0] / jnp.maximum(sums[name][1], 1.0) for name, factor in factors.items())
        weight = jnp.sum(batch.weights)
        return jnp.asarray(loss), {"loss": (loss * weight, weight), **sums}

    def terms(self, params: Params, batch: Batch, items: Items, key: Array | None) -> WeightedSums:
        """Nats of the tokens of each term, and how many these are, of all texts of a batch in one pass."""
        (rows, length), last, slots = batch.items.shape, batch.last, self.text.slots
        target, counts = take_position(batch.targets, last), take_position(batch.weights, last)
        drawn = jax.random.randint(jax.random.key(0) if key is None else key, (rows,), 1, items.size + 1)
        # The last target stands behind its history.
        there = jnp.sum(batch.items > 0, axis=1, keepdims=True)
        longer = jnp.pad(batch.items, [(0, 0), (0, 1)])
        longer = jnp.where(jnp.arange(length + 1) == there, target[:, None], longer)
        wanted, titles = (
            self._words(name, ids, items) for name, ids in ((self.config.kinds, target), (self.config.titles, drawn))
        )
        every, one = self.text.items(codes_of(items, longer), longer > 0), jnp.ones((rows, 1), bool)
        answer, item = (self.text.items(codes_of(items, ids)[:, None], one) for ids in (target, drawn))
        titled = self.text.texts(titles[:, None], one)
        chain = together(self.evidence(batch, items), self.text.texts(wanted[:, None], one), answer)
        find, name = together(titled, item), together(item, self.text.mark("name", rows), titled)
        states = self.network.states(params, (every, chain, find, name), there * (slots + 1))
        direct, reasoning, finding, naming = states
        direct = direct.reshape(rows, length + 1, slots + 1, -1)[:, 1:, :slots]
        weights = jnp.where(batch.targets > 0, batch.weights, 0.0)
        begin = -(slots + 1)  # states behind the start and all codes but the last
        want = begin - wanted.shape[1] - 2
        known = jnp.any(titles > 0, axis=1).astype(jnp.float32)
        code_nats, word_nats = partial(self.network.code_nats, params), partial(self.network.word_nats, params)
        return {
            "direct": code_nats(direct, codes_of(items, longer[:, 1:]), weights),
            "answer": code_nats(reasoning[:, begin:-1], codes_of(items, target), counts),
            "wanted": word_nats(reasoning[:, want : begin - 1], wanted, counts),
            "find": code_nats(finding[:, begin:-1], codes_of(items, drawn), known),
            "name": word_nats(naming[:, slots + 1 : -1], titles, known),
        }

    # --- ranking

    def prompt(self, source: Batch | Queries, items: Items) -> Part:
        """The text, from the left, behind which each row's next item, or the wanted kind, is written."""
        history = self.history(source, items)
        if self.config.mode == "direct":
            return history
        return compact(together(history, self.evidence(source, items)))

    @property
    def _most(self) -> int:
        """Words that the reasoning writes at most."""
        return 0 if self.config.mode == "direct" else self.stats.columns[self.config.kinds][0]

    def wanted(self, params: Params, source: Batch | Queries, items: Items) -> Int[Array, "q t"]:
        """The kinds that the reasoning says are wanted, as entries of the column; no words in direct mode."""
        return self.network.read(params, self.prompt(source, items), self._most)[2]

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        del params
        return {TRIE: device_trie(items[CODES], self.text.codes.sizes, items.start, items.size)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> Stepwise:
        return self.search(params, queries, items)

    def search(self, params: Params, source: Batch | Queries, items: Items) -> Stepwise:
        """The search for items after each row's history, or after the reasoning that it leads to."""
        trie = (items.prepared or self.prepare(params, items))[TRIE]
        begin, step = partial(self.network.begin, params, words=self._most), partial(self.network.step, params)
        return Stepwise(begin, step, self.prompt(source, items), trie, self.config.beam)

    def sharding_rules(self) -> Rules:
        return [(f"^{OWN}$", ()), *SHARDING_RULES, (".*", ())]


@dataclass(frozen=True)
class GREAMTextTuned(SRPO, GREAMText):
    """`GREAMText` tuned by `SRPO`, to be trained after a stage of `GREAMText`.

    Samples are the codes after the history, or, with `mode` "reasoning", after the likeliest reasoning, which is not
    rewarded by itself: not the paper's, where reasonings are drawn too.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_policy()

    def build(self, stats: ItemStats) -> "GREAMTextTunedModel":
        return GREAMTextTunedModel(self, super().build(stats).network, stats)


@dataclass(frozen=True)
class GREAMTextTunedModel(SRPOModel, GREAMTextModel):
    """`GREAMTextTuned` built for a catalog."""

    config: GREAMTextTuned

    def answers(self, params: Params, batch: Batch, items: Items) -> Stepwise:
        return self.search(params, batch, items)

    def sharding_rules(self) -> Rules:
        return [(f"(^|/){OWN}$", ()), *super().sharding_rules()]

"""Ways from a history to ten items, by networks of one size: code by code, as a set in one pass, by a product.

    python experiments/benchmarks/generation.py --items 12000 100000

TIGER finds items by beams over the trie of four codes, SETRec generates five vectors at once and scores the catalog by
them, SASRec by one. Lite-LLM4Rec has a Llama-like decoder read ten vectors once, and one product; the same decoder as a
generator (`Codewise`) reads the histories' codes and finds items by a beam. Parameters are random: nothing but time is
measured. Codes are clustered, histories have ten items, which are masked. What does not depend on the user, the trie
and the vectors of the catalog, is made before.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
import jax
import jax.numpy as jnp
import numpy as np
from decoding import catalog, latencies, throughput

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, VECTORS, Items, bare_items
from recjax.decode.scoring import Stepwise
from recjax.decode.trie import device_trie
from recjax.mixers.mixer import SeqContext
from recjax.models.lite_llm4rec import LiteLLM4Rec
from recjax.models.model import ItemStats, Model, ModelConfig
from recjax.models.sasrec import SASRec
from recjax.models.setrec import SETRec
from recjax.models.tiger import TIGER
from recjax.parallel.startup import disable_faulty_cpu_fusion
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import Decoder
from recjax.text.rows import TokenRows
from recjax.typing import InputError

K, SIZE, BEHAVIOUR, TEXT = 10, 256, 64, 256
"""Length of the lists, codes of a slot, and coordinates of the vectors that SETRec reads."""


@dataclass(frozen=True)
class Codewise(ModelConfig):
    """Lite-LLM4Rec's decoder as a generator of an item's codes, of which nothing but the time is known."""

    width: int
    layers: int
    heads: int
    inner: int
    beam: int

    def build(self, stats: ItemStats) -> "CodewiseModel":
        sizes: dict[str, Any] = dict(
            width=self.width, layers=self.layers, heads=self.heads, kv_heads=self.heads, inner=self.inner
        )
        config = DecoderConfig(1 + sum(stats.code_sizes), channels=self.width // self.heads, **sizes)
        return CodewiseModel(self, Decoder(config), stats)


@dataclass(frozen=True)
class CodewiseModel(Model):
    """The built generator; token 0 begins an item."""

    config: Codewise
    decoder: Decoder
    stats: ItemStats

    def init(self, key: Any, batch: Batch, items: Items) -> Any:
        return self.decoder.init(key, _rows(batch.items))["params"]

    def loss(self, params: Any, batch: Batch, items: Items, key: Any) -> Any:
        raise InputError("a generator that is timed is not trained")

    def prepare(self, params: Any, items: Items) -> dict[str, Any]:
        return {"trie": device_trie(items[CODES], self.stats.code_sizes, items.start, items.size)}

    def scoring(self, params: Any, queries: Queries, items: Items) -> Stepwise:
        offsets = 1 + np.cumsum((0, *self.stats.code_sizes))[:-1]
        history = (items[CODES][items.rows(queries.items)] + offsets).reshape(len(queries.items), -1)

        def begin(history: Any) -> Any:
            rows = _rows(history)
            room = history.shape[1] + len(offsets)
            _, caches = self._run(params, lambda decoder: decoder.begin(decoder.embed(rows), rows, room))
            return jax.tree.map(lambda x: x[:, None], caches), jnp.zeros((len(history), 1, 0))

        def step(cache: Any, codes: Any) -> Any:
            (caches, written), (users, beam) = cache, codes.shape
            slot = written.shape[2]
            tokens = jnp.where(codes < 0, 0, codes + (offsets[slot - 1] if slot else 0)).reshape(-1, 1)
            context = SeqContext(jnp.ones_like(tokens), jnp.full_like(tokens, history.shape[1] + slot))
            every = jax.tree.map(lambda x: jnp.broadcast_to(x, (users, beam, *x.shape[2:])), caches)
            flat = jax.tree.map(lambda x: x.reshape(users * beam, *x.shape[2:]), every)

            def logits(decoder: Decoder) -> Any:
                states, grown = decoder.step(decoder.embed(_rows(tokens)), context, flat)
                return decoder.logits(states)[:, 0, offsets[slot] : offsets[slot] + self.stats.code_sizes[slot]], grown

            found, flat = self._run(params, logits)
            caches = jax.tree.map(lambda x: x.reshape(users, beam, *x.shape[1:]), flat)
            return found.reshape(users, beam, -1), (caches, jnp.zeros((users, beam, slot + 1)))

        return Stepwise(begin, step, history, items.prepared["trie"], self.config.beam)

    def _run(self, params: Any, function: Any) -> Any:
        return self.decoder.apply({"params": params}, method=function)


def _rows(tokens: Any) -> TokenRows:
    return TokenRows(tokens, jnp.ones_like(tokens))


def systems(options: argparse.Namespace) -> dict[str, ModelConfig]:
    """Configurations to compare, by name."""
    width, layers, heads = options.width, options.layers, 4
    network: dict[str, Any] = dict(width=width, layers=layers, heads=heads, channels=width // heads, inner=4 * width)
    beams = {f"TIGER, beam {beam}": TIGER(**network, codes=SIZE, beam=beam) for beam in options.beams}
    sets = SETRec(**network, slots=4, hidden=(256, 128))
    llama: dict[str, Any] = dict(width=width, layers=layers, heads=heads, inner=4 * width)
    head = LiteLLM4Rec(**llama, dropout=0.0)
    beams |= {f"its decoder, beam {beam}": Codewise(**llama, beam=beam) for beam in options.beams}
    by_product = {"SASRec": SASRec(width=width, layers=layers, heads=heads, max_length=10), "Lite-LLM4Rec": head}
    return {**beams, "SETRec": sets, **by_product}


def made_up(items: int, rng: np.random.Generator) -> Items:
    """A catalog with all columns that the systems read."""
    columns: dict[str, Any] = {CODES: catalog(rng, items, SIZE)}
    for name, width in (("behaviour", BEHAVIOUR), (VECTORS, TEXT)):
        columns[name] = rng.standard_normal((items + 1, width), np.float32) / np.float32(np.sqrt(width))
    return bare_items(items, jax.tree.map(jnp.asarray, columns))


def questions(items: int, users: int, rng: np.random.Generator) -> Queries:
    """Histories of ten items."""
    history = rng.integers(1, items + 1, (users, 10)).astype(np.int32)
    places = np.broadcast_to(np.arange(10, dtype=np.int32), history.shape)
    return Queries(history, places, np.full(users, 10, np.int32), history)  # pyright: ignore[reportArgumentType]


def ready(config: ModelConfig, items: Items, queries: Queries) -> Any:
    """A function of queries, with what can be made before them."""
    size, columns = int(items.size), {name: x.shape[1:] for name, x in items.columns.items()}
    model: Model = config.build(ItemStats(size, np.ones(size + 1), columns, (SIZE,) * items[CODES].shape[1]))
    batch = Batch(queries.items, queries.segments, queries.positions, queries.items, queries.segments)
    params = jax.jit(model.init)(jax.random.key(0), batch, items)
    prepared = jax.jit(model.prepare)(params, items)

    @jax.jit
    def lists(params: Any, queries: Queries, prepared: Any) -> Any:
        own = Items(items.start, items.size, items.columns, {}, prepared)
        return model.scoring(params, queries, own).topk(queries.seen, K)[0]

    return lambda queries: jax.block_until_ready(lists(params, queries, prepared))


def measure(size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All systems on one catalog."""
    rng = np.random.default_rng(options.seed)
    items = made_up(size, rng)
    queries = questions(size, options.users, rng)
    each = [jax.tree.map(lambda x, user=user: x[user : user + 1], queries) for user in range(options.users)]
    records = []
    for name, config in systems(options).items():
        lists = ready(config, items, queries)
        rates = throughput(lambda lists=lists: lists(queries), options.users, options.seconds)
        taken = latencies(lambda user, lists=lists: lists(each[user]), options.users, options.seconds)
        facts = {"items": size, "system": name, "users": options.users, "load": contest.load()}
        records.append({**facts, **rates, "p50_ms": 1e3 * float(np.median(taken))})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--users", type=int, default=64, help="in a batch (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the networks (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of encoder and decoder (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the measurements")
    options = parser.parse_args()
    disable_faulty_cpu_fusion()
    machine = contest.machine()
    contest.print_machine(machine)
    columns = ("items", "system", "users/s", "users/CPU-s", "p50 ms", "load")
    shown = contest.table(f"width {options.width}, {options.layers} layers, top {K}, histories of 10 masked", columns)
    records = []
    for size in options.items:
        for found in measure(size, options):
            records.append(found)
            rates = (f"{found[name]:,.0f}" for name in ("users_per_second", "users_per_processor_second"))
            shown.add_row(f"{size:,}", found["system"], *rates, f"{found['p50_ms']:.1f}", f"{found['load']:.1f}")
        contest.save(options.out, {"benchmark": "generation", "machine": machine, "records": records})
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()

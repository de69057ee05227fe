"""Worth and cost of a language model's folder: perplexity on three texts, and tokens a second.

    recjax fetch-language-model --into language-models
    python experiments/benchmarks/language_model.py language-models/SmolLM2-135M-Instruct

Perplexity is shown twice: of the folder, and with the rows of queries and keys in the order in which a GGUF file has
them, which is what a converter that forgets to reorder them would give.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recjax.parallel.startup import initialize
from recjax.text.lm.folder import LanguageModel, read_language_model
from recjax.text.lm.generate import generate, log_likelihoods
from recjax.text.rows import TokenRows, padded

TEXTS = {
    "prose": "The water cycle begins when the sun heats the oceans. Water turns into vapour, rises into the air and "
    "cools until it forms clouds. When the drops in a cloud become heavy enough, they fall as rain or snow, and rivers "
    "carry the water back to the sea.",
    "list": "Ingredients: two cups of flour, one cup of sugar, three eggs, half a cup of butter, a teaspoon of "
    "baking powder and a pinch of salt. Mix the dry ingredients first, then add the eggs one at a time, and bake for "
    "thirty minutes.",
    "titles": "Exfoliating Bath Gloves, 4 Pairs, Blue. Tea Tree Oil Shampoo, 16 oz. Ceramic Hair Dryer with Diffuser, "
    "1875 W. Makeup Brush Set, 12 Pieces, Black. Vitamin C Serum for Face, 1 fl oz.",
}
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def perplexity(model: LanguageModel, params: Any, text: str) -> float:
    """exp of the mean negative log-likelihood of a text's tokens but the first."""
    rows = padded(model.tokenise([text]))
    found = log_likelihoods(model.decoder, params, rows)
    return float(np.exp(-np.asarray(found).sum() / (rows.tokens.shape[1] - 1)))


def as_stored(model: LanguageModel) -> Any:
    """Parameters with the rows of queries and keys interleaved, as in a GGUF file."""
    channels = model.decoder.config.channels

    def interleaved(path: Any, leaf: np.ndarray) -> np.ndarray:
        if not any(getattr(part, "key", "") in ("query", "key") for part in path):
            return leaf
        halves = leaf.reshape(*leaf.shape[:-1], -1, 2, channels // 2)
        return halves.swapaxes(-1, -2).reshape(leaf.shape)

    return jax.tree.map_with_path(interleaved, model.params)


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Least seconds of three calls, after one that compiles: by the clock, and of processors."""
    jax.block_until_ready(run())
    found = []
    for _ in range(3):
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        found.append((time.perf_counter() - start, time.process_time() - used))
    return min(clock for clock, _ in found), min(used for _, used in found)


def speeds(model: LanguageModel, rows: int, length: int, new: int) -> dict[str, list[float]]:
    """Tokens a second, by the clock and of processors: of reading texts of `length` tokens, and of generation."""
    params = jax.device_put(model.params)
    tokens = np.random.default_rng(0).integers(20, model.decoder.config.vocabulary, (rows, length))

    def states(params: Any, rows: TokenRows) -> Any:
        inputs = model.decoder.apply({"params": params}, rows, method="embed")
        return model.decoder.apply({"params": params}, inputs, rows, method="states")

    read = partial(jax.jit(states), params, padded(tokens))
    many = partial(generate, model.decoder, params, padded(tokens), new=new)
    one = partial(generate, model.decoder, params, padded(tokens[:1]), new=new)
    work = {
        "read": (rows * length, read),
        f"prompt and {new} new, {rows} rows": (rows * new, many),
        f"prompt and {new} new, one row": (new, one),
    }
    return {name: [tokens / spent for spent in seconds(run)] for name, (tokens, run) in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a language model's")
    parser.add_argument("--rows", type=int, default=8, help="texts at once (default %(default)s)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a prompt (default %(default)s)")
    parser.add_argument("--new", type=int, default=32, help="tokens to generate (default %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="(default %(default)s)")
    parser.add_argument(
        "--weights", default="float32", choices=("float32", "bfloat16", "int8"), help="(default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    initialize()
    model = read_language_model(options.folder, dtype=options.dtype, weights=options.weights)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    print(f"parameters take {held / 1e6:.0f} MB")
    stored = as_stored(model)
    table = {
        name: [perplexity(model, params, text) for params in (model.params, stored)] for name, text in TEXTS.items()
    }
    print(f"{'perplexity':12} {'as converted':>14} {'rows as stored':>15}")
    for name, (converted, wrong) in table.items():
        print(f"{name:12} {converted:14.1f} {wrong:15.1f}")
    made = generate(model.decoder, model.params, padded(model.tokenise([PROMPT])), new=12, stop=model.stop)
    print(f"answer: {model.tokenizer.decode(made.tokens[0, : made.lengths[0]].tolist())!r}")
    found = speeds(model, options.rows, options.length, options.new)
    print(f"{'tokens':32} {'a second':>10} {'of a processor':>16}")
    for name, (clock, used) in found.items():
        print(f"{name:32} {clock:10.1f} {used:16.1f}")
    if options.out:
        options.out.write_text(json.dumps({"perplexity": table, "tokens_per_second": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

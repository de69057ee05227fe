"""Writes `tests/models/fixtures/t5.safetensors`: what Hugging Face's T5 makes of random weights, plain and gated.

Run by hand, in an environment of its own; the file it writes is kept with the tests:

    python -m venv t5-env
    t5-env/bin/pip install transformers==4.46.3 flax==0.8.5 jax==0.4.30 jaxlib==0.4.30 "numpy<2" "scipy<1.13"
    t5-env/bin/python tests/models/make_t5_twin.py
"""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file
from transformers import FlaxT5ForConditionalGeneration, T5Config

SIZES = {
    "vocab_size": 13,
    "d_model": 8,
    "num_heads": 2,
    "d_kv": 3,
    "d_ff": 12,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
VARIANTS = {
    "plain": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def main() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 13, (2, 30)).astype(np.int32)
    mask = np.ones_like(tokens)
    mask[1, 22:] = 0
    targets = rng.integers(1, 13, (2, 14)).astype(np.int32)
    arrays = {"tokens": tokens, "mask": mask, "targets": targets}
    for name, options in VARIANTS.items():
        model = FlaxT5ForConditionalGeneration(T5Config(**SIZES, **options), seed=0)
        params = {
            path: (0.4 * rng.normal(size=leaf.shape) + (path[-1] == "weight")).astype(np.float32)
            for path, leaf in flatten_dict(model.params).items()
        }
        logits = model(
            tokens, attention_mask=mask, decoder_input_ids=targets, params=unflatten_dict(params), train=False
        ).logits
        arrays[f"{name}/logits"] = np.asarray(logits)
        arrays |= {"/".join((name, *path)): leaf for path, leaf in params.items()}
    save_file(arrays, Path(__file__).parent / "fixtures" / "t5.safetensors")


if __name__ == "__main__":
    main()

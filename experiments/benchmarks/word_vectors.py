"""Makes the table of word vectors that comes with recjax from a sentence encoder.

    python experiments/benchmarks/word_vectors.py FOLDER_OF_ALL_MINILM_L6_V2

Each word piece of the encoder's vocabulary is encoded alone, and reduced to the leading principal components. The
folder comes by `recjax fetch-encoder`.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax import array_files
from recjax.text.encoder import pooled
from recjax.text.folder import EncoderFolder, read_folder
from recjax.text.rows import TokenRows
from recjax.text.words import TABLE, UNKNOWN, quantised
from recjax.typing import Array, Params

WIDTH = 152
ROWS = 1024


def encoded(encoder: EncoderFolder, ids: np.ndarray) -> np.ndarray:
    """Vectors of word pieces between the special tokens of a text, float32 [n, d], not normalised."""
    first, last = (encoder.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))

    @jax.jit
    def vectors(params: Params, tokens: Array) -> Array:
        hidden: Any = encoder.module.apply({"params": params}, TokenRows(tokens, jnp.ones_like(tokens)))
        return pooled(hidden, jnp.full(ROWS, 3), "mean", False)

    parts = []
    for start in range(0, len(ids), ROWS):
        part = np.resize(ids[start : start + ROWS], ROWS)
        tokens = np.stack([np.full(ROWS, first), part, np.full(ROWS, last)], axis=1).astype(np.int32)
        parts.append(np.asarray(vectors(encoder.params, tokens)))
    return np.concatenate(parts)[: len(ids)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="folder of a BERT-like sentence encoder")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"components (default {WIDTH}, 4.8 MB)")
    parser.add_argument("--out", type=Path, default=TABLE, help="file to write (default the package's)")
    options = parser.parse_args()

    encoder = read_folder(options.encoder)
    vocabulary = encoder.tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    pieces = [UNKNOWN, *(piece for piece in pieces if not (piece.startswith("[") and piece.endswith("]")))]
    vectors = encoded(encoder, np.array([vocabulary[piece] for piece in pieces])).astype(np.float64)
    vectors -= vectors[1:].mean(axis=0)
    directions = np.linalg.eigh(vectors[1:].T @ vectors[1:])[1][:, ::-1][:, : options.width]
    vectors = vectors @ directions
    vectors[0] = 0.0

    options.out.parent.mkdir(parents=True, exist_ok=True)
    array_files.write(options.out, quantised(pieces, vectors))
    record = {
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
        "command": f"python experiments/benchmarks/word_vectors.py FOLDER --width {options.width}",
        "made_from": f"sentence-transformers/{options.encoder.name}, Apache-2.0",
        "pieces": len(pieces),
        "width": options.width,
    }
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, sha256 {record['sha256']}")


if __name__ == "__main__":
    main()

"""Vectors of texts are means of the states over each one's tokens, whatever stands beside it in a batch."""

from pathlib import Path

import jax
import numpy as np

from recjax.text.lm.encoder import LanguageModelEncoder
from recjax.text.lm.folder import read_language_model
from recjax.text.rows import padded
from recjax.text.space import Channel, TextSpace

TWIN = Path(__file__).parent / "twins" / "smollm2"


def test_vectors_are_means_of_the_states_of_the_first_blocks():
    encoder = LanguageModelEncoder(str(TWIN), layers=1, max_tokens=6, batch_tokens=24)
    texts = ["red lamp", "", "a longer text than all the others, which is cut", "red lamp"]
    found = encoder.encode(texts)
    model = read_language_model(TWIN, layers=1)
    for vector, tokens in zip(found, model.tokenise(texts), strict=True):
        expected = np.zeros(model.decoder.config.width)
        if tokens := tokens[:6]:
            rows = padded([tokens], 6)
            states = jax.jit(lambda p, rows=rows: model.decoder.apply({"params": p}, rows, method=_states))(
                model.params
            )
            expected = np.asarray(states)[0, : len(tokens)].mean(axis=0)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    assert not found[1].any() and LanguageModelEncoder(str(TWIN)).fingerprint() != encoder.fingerprint()
    assert encoder.width == found.shape[1]
    assert TextSpace((Channel(encoder),)).encoders == str(TWIN)


def _states(decoder, rows):
    return decoder.states(decoder.embed(rows), rows)

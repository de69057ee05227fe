"""The published architecture: equal to a PyTorch twin through our importer, which refuses what is no plain tensor."""

import dataclasses
import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import text_items
from recjax.models.model import ItemStats
from recjax.models.parts.published_checkpoint import import_recgpt, model_params
from recjax.models.parts.torch_file import read_state_dict
from recjax.models.recgpt_published import RecGPTPublished
from recjax.tokenizers.item_codes import load_state
from recjax.typing import InputError
from tests.drawn import drawn_for

FIXTURES = Path(__file__).parent / "fixtures"
ITEMS, SLOTS, VOCABULARY, LENGTH = 10, 4, 50, 10
HISTORIES = np.array([[3, 7, 1, 10, 2, 5], [9, 4, 6, 0, 0, 0]], np.int32)
CONFIG = RecGPTPublished(
    width=32, layers=2, heads=2, vocabulary=VOCABULARY, slots=SLOTS, aux_width=8, max_items=8, dropout=0.1
)
MODEL = dataclasses.replace(CONFIG, dropout=0.0).build(ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)))


@jax.jit
def logits_and_loss(params, batch, items):
    hidden = MODEL.module.apply({"params": params}, *MODEL._inputs(batch, items), batch.segments, batch.positions)
    return hidden @ params["pred_head"].T, MODEL.loss(params, batch, items, None)[0]


@jax.jit
def ranked(params, queries, items, targets):
    scoring = MODEL.scoring(params, queries, items)
    return scoring.topk(queries.seen, 5), scoring.rank(targets, queries.seen)[0]


@pytest.fixture(scope="module")
def published():
    return import_recgpt(FIXTURES / "model.pt", FIXTURES / "tokenizer.pt", heads=2, levels=(7, 7))


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "expected.npz") as arrays:
        return dict(arrays)


def _table(expected):
    known = np.any(expected["vectors"] != 0, axis=1)
    return jax.tree.map(jnp.asarray, text_items(expected["vectors"], known, expected["codes"]))


def _batch(items, segments=None, positions=None):
    """Rows of `LENGTH` items; next items as targets, where the next position is of the same history."""
    items = np.pad(items, [(0, 0), (0, LENGTH - items.shape[1])])
    segments = (items > 0).astype(np.int32) if segments is None else segments
    positions = np.broadcast_to(np.arange(items.shape[1]), items.shape) if positions is None else positions
    follows = np.pad((segments[:, 1:] == segments[:, :-1]) & (items[:, 1:] > 0), [(0, 0), (0, 1)])
    targets = np.where(follows, np.pad(items[:, 1:], [(0, 0), (0, 1)]), 0)
    arrays = (items, segments, positions, targets, follows)
    types = (jnp.int32, jnp.int32, jnp.int32, jnp.int32, jnp.float32)
    return Batch(*(jnp.asarray(a, t) for a, t in zip(arrays, types, strict=True)))


def _check(published, expected):
    assert published.config == CONFIG
    logits, loss = logits_and_loss(published.params, _batch(HISTORIES), _table(expected))
    real = np.repeat(HISTORIES > 0, SLOTS, axis=1)
    found = np.asarray(logits)[:, : real.shape[1]]
    np.testing.assert_allclose(found[real], expected["logits"][real], atol=1e-4)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    known = np.ones(ITEMS + 1, bool)
    codes = published.tokenizer.encode(published.state, expected["vectors"], known)
    np.testing.assert_array_equal(codes, expected["codes"])
    assert len(np.unique(codes[1:], axis=0)) == ITEMS


def test_logits_loss_and_codes_equal_the_stored_twin(published, expected):
    _check(published, expected)


def test_logits_loss_and_codes_equal_a_live_twin(tmp_path):
    torch = pytest.importorskip("torch")
    from tests.models import torch_twin

    model, tokenizer, vectors = torch_twin.make(seed=1)
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, tmp_path / "model.pt")
    torch.save(tokenizer.state_dict(), tmp_path / "tokenizer.pt")
    live = import_recgpt(tmp_path / "model.pt", tmp_path / "tokenizer.pt", heads=2, levels=(7, 7))
    _check(live, torch_twin.expected(model, tokenizer, vectors))


def test_packing_and_padding_side_change_nothing(published, expected):
    table = _table(expected)
    alone, _ = logits_and_loss(published.params, _batch(HISTORIES), table)
    packed = np.array([[9, 4, 6, 3, 7, 1, 10, 2, 5, 0], [0, 0, 0, 0, 0, 0, 0, 9, 4, 6]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 2, 2, 0], [0] * 7 + [1] * 3])
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 4, 5, 0], [0] * 7 + [0, 1, 2]])
    together, _ = logits_and_loss(published.params, _batch(packed, segments, positions), table)
    np.testing.assert_allclose(together[0, 3 * SLOTS : 9 * SLOTS], alone[0, : 6 * SLOTS], atol=2e-5)
    np.testing.assert_allclose(together[0, : 3 * SLOTS], alone[1, : 3 * SLOTS], atol=2e-5)
    np.testing.assert_allclose(together[1, 7 * SLOTS :], alone[1, : 3 * SLOTS], atol=2e-5)


def test_rank_is_by_the_sum_of_code_logits(published, expected):
    seen = jnp.asarray([[3, 7, 0], [9, 0, 0]], jnp.int32)
    lengths = jnp.asarray([6, 3], jnp.int32)
    positions = jnp.tile(jnp.arange(6, dtype=jnp.int32), (2, 1))
    queries = Queries(jnp.asarray(HISTORIES), positions, lengths, seen)
    last = np.stack([expected["logits"][0, 20:24], expected["logits"][1, 8:12]])
    scores = sum(last[:, slot][:, expected["codes"][:, slot]] for slot in range(SLOTS))
    scores[:, 0] = -np.inf
    for row, items in enumerate(np.asarray(seen)):
        scores[row, items] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    (items, best), ranks = ranked(published.params, queries, _table(expected), jnp.asarray(order[:, 3], jnp.int32))
    np.testing.assert_array_equal(items, order[:, :5])
    np.testing.assert_allclose(best, np.take_along_axis(scores, order[:, :5], 1), atol=1e-4)
    np.testing.assert_array_equal(ranks, [4, 4])


def test_training_lowers_the_loss(expected):
    table = _table(expected)
    stats = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64), table.row_shapes, (49,) * SLOTS)
    config = RecGPTPublished(width=16, layers=1, heads=2, vocabulary=VOCABULARY, aux_width=8, max_items=8)
    model, batch = config.build(stats), _batch(HISTORIES)
    params = drawn_for(model.init, jax.random.key(0), batch, table)
    step = jax.jit(jax.value_and_grad(lambda params, key: model.loss(params, batch, table, key)[0]))
    first = step(params, jax.random.key(0))[0]
    assert abs(float(first) - np.log(VOCABULARY)) < 0.3
    for i in range(20):
        loss, gradient = step(params, jax.random.key(i))
        params = jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.3) * np.asarray(g), params, gradient)
    assert loss < first - 0.3


def test_tokenizer_is_kept_as_a_run_keeps_it(published, tmp_path):
    published.save_tokenizer(tmp_path / "codes")
    kept, state = (flatten_dict(tree, sep="/") for tree in (load_state(tmp_path / "codes"), published.state))
    assert set(kept) == set(state)
    for name, value in kept.items():
        np.testing.assert_array_equal(value, state[name])


class _Malicious:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('harm').touch()",))


def _archive(path: Path, content: bytes, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in files.items():
            archive.writestr(f"archive/data/{name}", data)
    return path


def test_nothing_pickled_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = _archive(tmp_path / "evil.pt", pickle.dumps({"wte.weight": _Malicious()}, protocol=2))
    with pytest.raises(InputError, match=r"asks for __builtin__.eval|asks for builtins.eval"):
        read_state_dict(path)
    assert not (tmp_path / "harm").exists()
    whole = _archive(tmp_path / "module.pt", b"ctorch.nn.modules.linear\nLinear\n)\x81.")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_state_dict(whole)


def _tensor_pickle(size: tuple, stride: tuple) -> bytes:
    """A hand-written state dict of one tensor over storage 0 of 4 floats."""
    shape = b"".join(b"I%d\n" % n for n in size), b"".join(b"I%d\n" % n for n in stride)
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
    return (
        b"(dVx\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n(" + shape[0] + b"t(" + shape[1] + b"t"
        b"I00\nccollections\nOrderedDict\n(tRtRs."
    )


def test_tensors_never_reach_beyond_their_storage(tmp_path):
    data = np.arange(4, dtype="<f4").tobytes()
    good = _archive(tmp_path / "good.pt", _tensor_pickle((2, 2), (1, 2)), **{"0": data})
    np.testing.assert_array_equal(read_state_dict(good)["x"], [[0, 2], [1, 3]])
    for size, stride in (((3, 2), (2, 1)), ((1000, 1000), (0, 0)), ((2,), (-1,))):
        bad = _archive(tmp_path / "bad.pt", _tensor_pickle(size, stride), **{"0": data})
        with pytest.raises(InputError, match="is damaged"):
            read_state_dict(bad)


def test_a_small_file_never_takes_much_memory(tmp_path):
    pickles = {
        "LONG_BINPUT": b"]r\x00\x00\x00\x0a.",
        "BYTEARRAY8": b"\x80\x05\x96\x00\x00\x00\x80\x00\x00\x00\x00.",
    }
    tracemalloc.start()
    try:
        for name, content in pickles.items():
            with pytest.raises(InputError, match=f"is damaged: ({name} of|expected 2147483648 bytes)"):
                read_state_dict(_archive(tmp_path / "small.pt", content))
        path = tmp_path / "zeros.pt"
        count = 1 << 24
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", _tensor_pickle((count,), (1,)).replace(b"I4\n", b"I%d\n" % count))
            archive.writestr("a/data/0", bytes(4 * count))
        tracemalloc.reset_peak()
        with pytest.raises(InputError, match="is compressed, which PyTorch's files are not"):
            read_state_dict(path)
        many = b"(d" + b"".join(
            b"Vx%d\n" % number + _tensor_pickle((2, 2), (1, 2))[5:-1] for number in range(500)
        ) + b"."  # fmt: skip
        data = np.zeros(4, "<f4").tobytes()
        assert len(read_state_dict(_archive(tmp_path / "many.pt", many, **{"0": data}))) == 500
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


def test_layers_are_counted_by_names_that_are_there(tmp_path):
    found = {f"h.{10**12}.ln_1.weight": np.zeros(3, np.float32)}
    with pytest.raises(InputError, match="is not the published model"):
        model_params(found, tmp_path, 4, 2)


def test_other_files_are_named_for_what_they_are(tmp_path, published):
    old = tmp_path / "old.pt"
    old.write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=r"no zip file.*save it again"):
        read_state_dict(old)
    with pytest.raises(InputError, match="is not a file"):
        read_state_dict(tmp_path / "absent.pt")
    outer = tmp_path / "ckpt.pt.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("layer_3.pt", io.BytesIO().getvalue())
    with pytest.raises(InputError, match=r"it holds layer_3\.pt: unzip that first"):
        read_state_dict(outer)
    with pytest.raises(InputError, match=r"missing: .*wte\.weight.*not known: .*quantizer\.project_in\.bias"):
        import_recgpt(FIXTURES / "tokenizer.pt", FIXTURES / "tokenizer.pt", heads=2, levels=(7, 7))
    with pytest.raises(InputError, match="project/kernel has shape"):
        import_recgpt(FIXTURES / "model.pt", FIXTURES / "tokenizer.pt", heads=2)
    with pytest.raises(InputError, match="heads is 3, expected a number that divides the width, 32"):
        import_recgpt(FIXTURES / "model.pt", FIXTURES / "tokenizer.pt", heads=3, levels=(7, 7))


def test_catalogs_that_do_not_fit_are_refused(expected):
    config = RecGPTPublished(width=16, layers=1, heads=2, vocabulary=VOCABULARY, aux_width=9)
    with pytest.raises(InputError, match="item vectors have 32 coordinates, expected 4 x 9"):
        config.build(ItemStats(ITEMS, np.ones(ITEMS + 1), _table(expected).row_shapes, (49,) * SLOTS))

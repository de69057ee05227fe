"""Configurations: types, overrides, JSON."""

import importlib.util
import json
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recjax import config as configs
from recjax import recipes
from recjax.config import RunConfig, completed, diff, from_json, keys, override, override_all, to_json
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.relations import Neighbours
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.rank_sets import RankSets
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import BCE, FullSoftmax, SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.typing import InputError


@dataclass(frozen=True)
class Part:
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    label: str = "a"
    mode: Literal["slow", "fast"] = "slow"
    limit: int | None = None
    clip: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "x")
    extra: Any = None


@dataclass(frozen=True)
class Other:
    depth: int = 3


@dataclass(frozen=True)
class EitherOr:
    steps: int | None = None
    epochs: int | None = 5

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InputError("give one")


@dataclass(frozen=True)
class Holder:
    inner: Part | Other = field(default_factory=Part)


def run_config(**parts: Any) -> RunConfig:
    default = {part: Part() for part in ("data", "optim", "mesh", "train", "evaluate")}
    return RunConfig(**({"name": "test", "model": SASRec(width=32)} | default | parts))


HERE = sys.modules[__name__]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.count", "7", 7),
        ("train.count", "-3", -3),
        ("train.count", "1e5", 100_000),
        ("train.rate", "1e-3", 1e-3),
        ("train.rate", "2", 2.0),
        ("train.flag", "true", True),
        ("train.flag", "False", False),
        ("train.flag", "1", True),
        ("train.label", "none", "none"),
        ("train.label", "12", "12"),
        ("train.label", "a=b", "a=b"),
        ("train.mode", "fast", "fast"),
        ("train.limit", "4", 4),
        ("train.limit", "none", None),
        ("train.clip", "None", None),
        ("train.clip", "1.5", 1.5),
        ("train.sizes", "3,4,5", (3, 4, 5)),
        ("train.sizes", "(3, 4)", (3, 4)),
        ("train.sizes", "7", (7,)),
        ("train.sizes", "", ()),
        ("train.pair", "2,y", (2, "y")),
        ("train.extra", "2.5", 2.5),
        ("train.extra", "word", "word"),
        ("seed", "11", 11),
        ("model.width", "128", 128),
        ("model.norm", "post", "post"),
    ],
)
def test_override_reads_text_by_declared_type(key, text, value):
    config = run_config()
    changed = override(config, key, text)
    found = changed
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)
    assert config == run_config()  # the original is untouched


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.widht=1", r"no setting 'model.widht'; did you mean 'model.width' \(int, now 32\)"),
        ("width=1", "did you mean 'model.width'"),
        ("model.width=wide", "model.width=wide: expected int, found 'wide'"),
        ("model.width=1.5", "expected int"),
        ("model.norm=middle", "expected one of 'sasrec', 'pre', 'post'"),
        ("train.flag=maybe", "expected bool"),
        ("train.rate=nan", "expected a finite number"),
        ("train.limit=x", "expected int or none"),
        ("train.sizes=1,x", "expected int, ..."),
        ("train.pair=1", r"expected \(int, str\)"),
        ("model.loss=Hinge", "expected FullSoftmax or SampledSoftmax"),
        ("model=3", "model is a group of settings .SASRec.; set one of: model.width"),
        ("text.width=3", "text is None here"),
        ("train.count.bits=3", "train.count is 1 here"),
        ("zzzzzz=1", "there are: name"),
        ("model.width", "expected key=value"),
        ("=3", "expected key=value"),
    ],
)
def test_bad_overrides_say_what_is_wrong(setting, message):
    with pytest.raises(InputError, match=message):
        override_all(run_config(), [setting])


def test_a_class_is_chosen_by_name_and_then_set():
    changed = override_all(run_config(), ["model.loss=SampledSoftmax", "model.loss.negatives=64"])
    assert changed.model.loss == SampledSoftmax(negatives=64)
    nested = override_all(run_config(train=Holder()), ["train.inner=Other", "train.inner.depth=9"])
    assert nested.train == Holder(Other(9))
    assert override_all(run_config(train=Holder()), ["train.inner.depth=9", "train.inner=Other"]) == nested


def test_settings_that_depend_on_each_other_change_together():
    changed = override_all(run_config(train=EitherOr()), ["train.steps=20", "train.epochs=none"])
    assert changed.train == EitherOr(steps=20, epochs=None)
    with pytest.raises(InputError, match="give one"):
        override_all(run_config(train=EitherOr()), ["train.steps=20"])


def test_every_listed_key_can_be_set_to_its_own_value():
    config = run_config(train=Holder())
    for key, value in keys(config):
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if key not in ("text", "tokenizer"):
            assert override(config, key, text) == config, key


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": Part(rate=float("nan"))}, "train.rate is nan"),
        ({"train": Part(sizes=[1])}, "train.sizes is .1., expected int, ..."),  # pyright: ignore[reportArgumentType]
        ({"train": Part(extra=object())}, "train.extra"),
        ({"train": Part}, "train is .*expected a configuration"),
        ({"train": None}, "train is None"),
        ({"seed": 0.5}, "seed is 0.5, expected int"),
    ],
)
def test_types_are_checked_when_composed(parts, message):
    with pytest.raises(InputError, match=message):
        run_config(**parts)


def test_a_sequence_that_json_would_not_give_back_is_refused():
    @dataclass(frozen=True)
    class Listed:
        sizes: Any = ()
        bare: list = field(default_factory=list)

    with pytest.raises(InputError, match=r"train.bare is \[\], expected a tuple"):
        run_config(train=Listed())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": "64"}, "SASRec.width is '64', expected int"),
        ({"width": True}, "SASRec.width is True, expected int"),
        ({"norm": "none"}, "SASRec.norm is 'none', expected one of 'sasrec', 'pre', 'post'"),
        ({"loss": Part()}, "SASRec.loss is Part"),
        ({"dropout": 2.0}, "SASRec.dropout is 2.0, expected 0 or more and below 1"),
        ({"layers": 10**30}, "SASRec.layers is 1e+30, expected 1 or more and at most 1,024"),
        ({"heads": 3}, "Attention.heads is 3, expected a number that divides the width, 64"),
    ],
)
def test_a_configuration_checks_itself_as_it_is_made(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SASRec(**values)


def test_histories_fit_the_positions_of_the_model():
    view = Shifted(max_length=50)
    with pytest.raises(InputError, match=r"data.view.max_length is 50, but the model has positions for 20 events"):
        run_config(model=SASRec(max_length=20), data=Data("synthetic", view=view))
    run_config(model=NextItem(mixer="lru", max_length=20), data=Data("synthetic", view=view))  # knows the order itself


def test_json_round_trip(tmp_path: Path):
    config = run_config(train=Part(sizes=(4, 5), extra=(1, "x")), model=SASRec(loss=BCE(2)), optim=Holder(Other()))
    tree = json.loads(json.dumps(to_json(config)))
    assert tree["model"]["type"] == "recjax.models.sasrec:SASRec"
    assert tree["train"]["type"] == "recipe:Part"
    assert from_json(tree, HERE) == config

    configs.save(config, tmp_path / "config.json")
    assert configs.load(tmp_path / "config.json", HERE) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@given(
    st.builds(
        Part,
        count=st.integers(),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        flag=st.booleans(),
        label=st.text(),
        limit=st.none() | st.integers(),
        sizes=st.lists(st.integers()).map(tuple),
        extra=st.recursive(
            st.none() | st.booleans() | st.text() | st.integers(), lambda s: st.lists(s).map(tuple), max_leaves=4
        ),
    )
)
def test_any_part_survives_json(part: Part):
    assert from_json(json.loads(json.dumps(to_json(part))), HERE) == part


@pytest.mark.parametrize(
    "tag",
    [
        "os:system",
        "subprocess:Popen",
        "recjax.config:importlib",
        "recjax.config:RunConfig.name",
        "recjax.config:to_json",
        "recjax.models.gsasrec:ItemStats",  # imported there, not defined there
        "recjax.absent:Thing",
        "recjaxx.config:RunConfig",
        "recipe:json",
        "recipe:Absent",
        "RunConfig",
        "recjax.config:__class__.x",
        7,
    ],
)
def test_tags_resolve_to_configurations_only(tag):
    with pytest.raises(InputError, match=r"configuration|module"):
        from_json({"type": tag}, HERE)


def test_recipe_tags_need_the_recipe():
    with pytest.raises(InputError, match="--recipe"):
        from_json(to_json(Part()))


def test_json_with_unknown_or_missing_settings():
    tree = to_json(SASRec())
    with pytest.raises(InputError, match=r"no setting 'widht'.*did you mean 'width'"):
        from_json(tree | {"widht": 3})
    with pytest.raises(InputError, match="required positional argument"):
        from_json({"type": "recjax.config:RunConfig", "name": "x"})
    del tree["dropout"]  # a setting added since then takes its default
    assert from_json(tree) == SASRec()


@pytest.mark.parametrize("content", ["{", "\udcff", "[1]", '{"type": "recjax.models.sasrec:SASRec"}'])
def test_a_damaged_file_is_one_message(tmp_path: Path, content):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=r"config\.json"):
        configs.load(path)
    with pytest.raises(InputError, match="not a run folder"):
        configs.load(tmp_path / "absent" / "config.json")


def test_settings_that_came_later_have_their_defaults():
    config = recipes.read("sasrec_synthetic").config
    old = to_json(config)
    del old["seed"], old["model"]["loss"], old["data"]["view"]["max_length"]
    found = completed(old, config)
    assert set(diff(found, config)) == {"data.view.max_length"}  # which has no default
    changed = override_all(config, ["model.loss.chunk_elements=7", "seed=3"])
    assert set(diff(completed(old, changed), changed)) == {
        "data.view.max_length",
        "model.loss.chunk_elements",
        "seed",
    }
    old["model"]["type"] = "recjax.models.gsasrec:GSASRec"
    assert "loss" not in completed(old, config)["model"]


def test_diff_names_the_keys():
    before = run_config(model=SASRec(loss=FullSoftmax()))
    after = replace(override(before, "model.loss", "BCE"), seed=4)
    assert diff(before, before) == {}
    assert diff(before, after) == {
        "model.loss": ("recjax.models.parts.objectives:FullSoftmax", "recjax.models.parts.objectives:BCE"),
        "model.loss.negatives": (None, 1),
        "seed": (0, 4),
    }


SEVERAL = run_config(evaluate=(Evaluate(), RankSets(k=10)))


def test_several_evaluators_survive_json_and_one_is_as_before(tmp_path: Path):
    configs.save(SEVERAL, tmp_path / "config.json")
    assert configs.load(tmp_path / "config.json", HERE) == SEVERAL
    one = run_config(evaluate=Evaluate())
    assert SEVERAL.evaluators == SEVERAL.evaluate and one.evaluators == (one.evaluate,)
    old = {name: value for name, value in to_json(one)["evaluate"].items() if name != "baselines"}
    assert old["type"] == "recjax.evaluate.protocol:Evaluate" and from_json(old) == one.evaluate
    with pytest.raises(InputError, match="evaluate is "):
        replace(SEVERAL, evaluate=())


def test_entries_of_a_tuple_are_set_by_number_or_all_at_once():
    changed = override_all(SEVERAL, ["evaluate.k=30", "evaluate.1.mask_seen=history", "evaluate.candidates=uniform100"])
    assert changed.evaluate == (Evaluate(k=30, candidates="uniform100"), RankSets(k=30, mask_seen="history"))
    assert dict(keys(changed))["evaluate.1.k"] == 30
    assert diff(SEVERAL, changed)["evaluate.1.k"] == (10, 30)
    for setting, message in (
        ("evaluate.2.k=3", "did you mean 'evaluate.1.k'"),
        ("evaluate.1.candidates=full", "there is no setting 'evaluate.1.candidates'"),
        ("evaluate.kk=3", "there is no setting 'evaluate.kk'"),
        ("evaluate=x", r"several groups of settings: evaluate.0 \(Evaluate\), evaluate.1 \(RankSets\)"),
        ("evaluate.1=x", "there is no setting 'evaluate.1'"),
    ):
        with pytest.raises(InputError, match=message):
            override_all(SEVERAL, [setting])


@pytest.mark.parametrize("part", ["data", "model", "data.split", "model.loss", "items.near", "evaluate.0"])
def test_an_object_that_has_lost_its_type_is_refused(part):
    config = replace(recipes.read("sasrec_synthetic").config, items={"near": Neighbours()})
    tree = to_json(replace(config, evaluate=(config.evaluate, RankSets())))
    node = tree
    for name in part.split("."):
        node = node[int(name) if name.isdigit() else name]
    node["tyqe"] = node.pop("type")
    with pytest.raises(InputError, match=f"{part.partition('.0')[0]} has no 'type'"):
        from_json(tree)


def test_run_folders_written_before_modules_moved_load_and_are_the_same():
    config = recipes.read("sasrec_synthetic").config
    old = json.dumps(to_json(config)).replace("recjax.data.batches.", "recjax.data.")
    old = old.replace("recjax.models.parts.objectives", "recjax.models.parts.objectives")
    old = old.replace("recjax.data.prepare.preparation", "recjax.data.prepare.preparation")
    assert json.loads(old) != to_json(config)
    assert from_json(json.loads(old)) == config
    assert not diff(completed(json.loads(old), config), config)


@pytest.mark.parametrize("place", configs._MOVED)
def test_the_moved_modules_are_where_they_are_said_to_be(place):
    name = f"recjax.{configs._MOVED[place]}"
    assert importlib.util.find_spec(name) and not _exists(f"recjax.{place}")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False

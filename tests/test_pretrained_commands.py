"""The model that comes with recjax, on the command line."""

import json

import polars as pl
import pytest

from recjax.cli import main
from tests.tiny import on_one_device, tiny_datasets


@pytest.fixture(scope="module", autouse=True)
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(tiny_datasets(folder / "data", ["shop"])))
        patch.setenv("RECJAX_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        on_one_device(patch)
        yield


def test_a_catalog_with_logs_is_evaluated_without_training(capsys):
    assert main(["evaluate", "pretrained", "--data", "shop", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["name"] == "shop" and report["metrics"]["all"]["ndcg@10"] > 0
    assert report["floors"]["text_transition"] is not None


def test_lists_for_a_history_and_for_a_file_of_users(capsys, tmp_path):
    from recjax.data.store.prepared import find

    items = find("shop").item_ids[1:4]
    assert main(["recommend", "pretrained", "--data", "shop", "--history", ",".join(items), "--k", "3"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.strip()]) >= 4
    rows = [("a", items[0], 1), ("a", items[1], 2), ("b", items[2], 1)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "users.csv")
    options = ["--users", str(tmp_path / "users.csv"), "--out", str(tmp_path / "lists.csv"), "--k", "4"]
    assert main(["recommend", "pretrained", "--data", "shop", *options]) == 0
    lists = pl.read_csv(tmp_path / "lists.csv")
    assert lists.group_by("user_id").len()["len"].to_list() == [4, 4]
    assert not set(lists.filter(pl.col("user_id") == "a")["item_id"].cast(pl.String)) & set(items[:2])


@pytest.mark.parametrize(
    "command", [["evaluate"], ["serve", "--port", "0"], ["recommend", "--history", "1"], ["inspect"]]
)
def test_without_a_catalog_it_says_what_is_missing(command, capsys):
    assert main([command[0], "pretrained", *command[1:]]) == 2
    assert "--data NAME" in capsys.readouterr().err


def test_a_catalog_alone_is_ranked_and_not_evaluated(capsys, tmp_path):
    (tmp_path / "new").mkdir()
    table = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["red cup", "red bowl", "blue cup"]})
    table.write_csv(tmp_path / "new" / "products.csv")
    asked = ["--data", str(tmp_path / "new")]
    assert main(["recommend", "pretrained", *asked, "--history", "a"]) == 2
    assert "looks like a catalog: call it items.csv" in capsys.readouterr().err
    (tmp_path / "new" / "products.csv").rename(tmp_path / "new" / "items.csv")
    assert main(["recommend", "pretrained", *asked, "--history", "a"]) == 0
    assert "red bowl" in capsys.readouterr().out
    assert main(["evaluate", "pretrained", *asked]) == 2
    assert "there is nothing to evaluate on: dataset 'new' is a catalog without events" in capsys.readouterr().err


def test_it_does_not_advance_users_event_by_event(capsys, tmp_path):
    pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": [1]}).write_csv(tmp_path / "events.csv")
    assert main(["recommend", "pretrained", "--data", "shop", "--stream", str(tmp_path / "events.csv")]) == 2
    assert "event by event" in capsys.readouterr().err

"""A finished run that is given more steps."""

import numpy as np
import pytest

from recjax.train.loop import fit
from recjax.typing import InputError
from tests.train.toy import saved, toy_config, toy_task


def test_a_finished_run_takes_more_steps(tmp_path, capsys):
    assert fit(toy_config(steps=6), tmp_path, toy_task()).step == 6
    assert fit(toy_config(steps=12), tmp_path, toy_task()).step == 12
    assert "train.steps was 6 and is 12 now: from here on the learning rate is that" in capsys.readouterr().out
    whole = fit(toy_config(steps=12), tmp_path / "whole", toy_task())
    assert whole.total == 12  # at a constant rate, both are the same run
    for one, other in zip(
        *(saved(folder)[0].params["items"] for folder in (tmp_path, tmp_path / "whole")), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match=r"train\.steps is 12 there and 6 now"):
        fit(toy_config(steps=6), tmp_path, toy_task())
    with pytest.raises(InputError, match=r"train\.evaluate_every is 3 there and 2 now\. Give"):
        fit(toy_config(steps=20, evaluate_every=2), tmp_path, toy_task())


def test_a_run_out_of_patience_goes_on_with_more_of_it(tmp_path, capsys):
    def task():
        return toy_task(validate=lambda params: {"ndcg@10": 0.5})

    assert fit(toy_config(patience=1), tmp_path, task()).step == 6
    assert "(a larger train.patience lets it go on)" in capsys.readouterr().out
    assert fit(toy_config(patience=1, steps=20), tmp_path, task()).step == 6
    assert fit(toy_config(patience=2, steps=20), tmp_path, task()).step == 9
    assert fit(toy_config(patience=None, steps=20), tmp_path, task()).step == 20

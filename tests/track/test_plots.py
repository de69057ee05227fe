import math

from recjax.track.metrics import MetricLog, losses_of, read_metrics
from recjax.track.plots import plot_curves


def test_draws_what_there_is(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        for step in range(50, 1001, 50):
            log.write(step, {"loss": 2 + math.exp(-step / 200), "grad_norm": 0.5, "learning_rate": 1e-3, "coarse": 0.2})
            if step % 200 == 0:
                log.write(step, {"validation/ndcg@10": 0.1 * step / 1000, "validation/hr@10": 0.2 * step / 1000})
    assert losses_of(read_metrics(tmp_path)) == ["loss", "coarse"]
    path = plot_curves(tmp_path)
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "metrics.jsonl", "tensorboard"}


def test_nothing_to_draw(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        log.write(1, {"data_wait": 0.5})
    assert plot_curves(tmp_path) is None

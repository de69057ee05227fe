"""Pictures of a run."""

from pathlib import Path

from recjax.files import replacing
from recjax.track.metrics import losses_of, read_metrics

PANELS = (
    ("validation", ("validation/ndcg@10", "validation/hr@10", "validation/mrr")),
    ("gradient norm", ("grad_norm",)),
    ("learning rate", ("learning_rate",)),
)
"""Title of each panel after the loss, and the curves in it."""


def plot_curves(folder: Path) -> Path | None:
    """Draws the curves of a run's `metrics.jsonl` into `curves.png` beside it; None where there is nothing to draw."""
    curves = read_metrics(folder)
    panels = [("loss", losses_of(curves))]
    panels += [(title, [name for name in names if name in curves]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    if not panels:
        return None
    from matplotlib.figure import Figure  # slow to import, and only needed when a run has ended

    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            axes.plot(steps, values, marker="." if len(steps) < 40 else "", label=name.removeprefix("validation/"))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(frameon=False)
    path = folder / "curves.png"
    with replacing(path) as new:
        figure.savefig(new, dpi=120, format="png")
    return path

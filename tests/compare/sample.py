"""A comparison with everything that a page can show, made up."""

import math

from recjax.compare.comparison import Comparison, Cost, Curve, Estimate, Row

LENGTHS = ((1, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, None))


def row(index: int, name: str, height: float, seconds: float, seeds: int = 3) -> Row:
    curves, losses = [], []
    for seed in range(seeds):
        steps = list(range(100, 1601, 100))
        values = [height * (1 - math.exp(-step / 400)) + 0.002 * math.sin(step + 7 * seed + index) for step in steps]
        curves.append(Curve(steps, [seconds * step / 1600 for step in steps], values))
        losses.append(Curve(steps, None, [6.4 - 2 * (1 - math.exp(-step / 500)) + 0.02 * index for step in steps]))
    test = {
        "systems": ["attention", name],
        "metric": "ndcg@10",
        "difference": height - 0.25,
        "p_holm": 0.4 ** (8 * index),
    }
    return Row(
        name,
        seeds=list(range(seeds)),
        settings={} if not index else {"model.mixer": name, "model.width": str(64 + 4 * index)},
        metrics={
            "ndcg@10": Estimate(height, height - 0.006, height + 0.006, "seeds"),
            "hr@10": Estimate(2 * height, 2 * height - 0.01, 2 * height + 0.01, "seeds"),
            "mrr": Estimate(0.9 * height, 0.9 * height - 0.01, 0.9 * height + 0.01, "seeds"),
            "coverage@10": Estimate(0.8 - 0.1 * index),
        },
        test=None if not index else {**test, "interval": [height - 0.253, height - 0.247]},
        cost=Cost(
            parameters=120_000 + 9_000 * index,
            interactions_per_second=45_000 / (1 + index),
            train_seconds=seconds,
            seconds_to_target=seconds / 3,
            host_bytes=1.3e9,
            device_bytes=2.1e8,
            online_ms=None if index == 2 else 0.4 * (3 - index),
            state_bytes=None if index == 2 else 512.0 * 4**index,
        ),
        curves=curves,
        losses={"loss": losses, "coarse": losses[:1]},
        lengths=[
            {"from": low, "to": high, "users": 4000 // (place + 1), "value": v, "low": v - 0.01, "high": v + 0.01}
            for place, (low, high) in enumerate(LENGTHS)
            for v in [height * (0.7 + 0.1 * place * (1 if index else 0.5))]
        ],
        folders=[f"runs/mixers/cells/{name}-seed{seed}" for seed in range(seeds)],
        commands=[f"recjax train mixers.py --set model.mixer={name} --set seed={seed}" for seed in range(seeds)],
        times=["2026-11-29 14:05", "2026-11-28 09:30"],
        remarks=["+15% parameters: not of the first row's size"] if index == 2 else [],
        failures=["seed 2 failed: step 8: the loss is nan & the gradient's norm <inf>"] if index == 2 else [],
    )


def comparison() -> Comparison:
    """Three systems, three seeds."""
    heights = {"attention": 0.25, "s4": 0.262, "gru <script>": 0.231}
    rows = [row(index, name, height, 170 + 90 * index) for index, (name, height) in enumerate(heights.items())]
    return Comparison(
        "Ablation mixers",
        rows,
        metric="ndcg@10",
        question="Does a state-space model do better than attention on these logs, and what does it cost?\n\n"
        "Everything but the mixer is the same.",
        dataset={"name": "synthetic", "fingerprint": "99182a8e90e87e2f" * 4, "users": 4000, "items": 598},
        protocol={
            "split": "test",
            "candidates": "full",
            "mask_seen": "history",
            "tie": "equal scores rank by item id",
        },
        counts={"users": 4000, "novel": 3741, "repeat": 259, "head": 1321, "tail": 2679},
        floors={
            "popularity": {"ndcg@10": 0.0181, "hr@10": 0.0393, "mrr": 0.02, "coverage@10": 0.03},
            "transition": {"ndcg@10": 0.2401, "hr@10": 0.4447, "mrr": 0.193, "coverage@10": 0.97},
            "text_knn": None,
        },
        slices={"novel": [0.26, 0.27, 0.24], "head": [0.28, 0.27, 0.24], "tail": [0.21, 0.25, None]},
        doubts=["training sees the future: 48% of its events happen after the average test target"],
        target=0.2375,
        target_note="95% of the best validation of attention",
        machine=["2 x cpu a cell, 1 at a time; host: AMD EPYC, 2 cores"],
        commit="0.1.0 (3c42702)",
        wall_seconds=4000.0,
        commands=["recjax ablate mixers --seeds 3"],
        configuration={"model.mixer": "attention", "model.width": "64", "train.steps": "1600"},
    )

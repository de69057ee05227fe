# pyright: reportMissingImports=false
"""SRA-CL by its authors' code (github.com/ziqiangcui/SRA-CL): their data set, model, losses and epoch, on a CPU.

Their epoch is run as it is, with their argument device=cpu; what it reads its batches from holds it between turns. The
encoder is RecBole's. Vectors of a language model and the neighbours that they give are prepared before training and
read from files there; here both are random, of the same shapes: what they say costs nothing.
"""

import contextlib
import itertools
import json
import sys
from argparse import Namespace
from pathlib import Path

from turns import Held, StoppedError, Turned, Turns, histories

TURNS, SETTINGS = Turns(), json.loads(Path(sys.argv[1]).read_text())
CODE = Path(SETTINGS["code"]) / "sracl" / "recommender_code"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

SEMANTIC = 1024
"""Width of text vectors that the authors' model has built in."""


def numbered(users: dict, length: int) -> dict[str, int]:
    """Numbers of prefixes by what the authors call them, in their order."""
    keys: dict[str, int] = {}
    for user, items in users.items():
        for stop in range(1, len(items)):
            kept = items[max(0, stop - length) : stop]
            keys[":".join(map(str, [user, *kept]))] = len(keys)
    return keys


def main() -> None:
    s, folder = SETTINGS, Path(sys.argv[1]).parent / "sracl"
    sys.path.insert(0, str(CODE))
    import model as models
    import utils

    torch.set_num_threads(s["threads"])
    utils.set_seed(s["seed"])
    folder.mkdir()
    offsets, items = histories(s["events"])
    with (folder / "log.txt").open("w") as out:
        for user, (start, stop) in enumerate(itertools.pairwise(offsets)):
            out.writelines(f"{user + 1} {item}\n" for item in items[start:stop])
    training, _, _, _, count = utils.data_partition(f"{folder}/log.txt")
    keys = numbered(training, s["length"])
    random = np.random.default_rng(s["seed"])
    near_items = random.integers(1, count + 1, (count + 1, s["neighbours"]))
    near_samples = random.integers(0, len(keys), (len(keys), s["neighbours"]))
    args = Namespace(
        n_layers=s["layers"],
        n_heads=s["heads"],
        hidden_size=s["width"],
        inner_size=4 * s["width"],
        hidden_dropout_prob=s["dropout"],
        attn_dropout_prob=s["dropout"],
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        train_batch_size=s["batch"],
        initializer_range=0.02,
        loss_type="CE",
        item_num=count,
        maxlen=s["length"],
        temperature=1.0,
        alpha=0.1,
        beta=0.1,
        device="cpu",
        sorted_indices=torch.tensor(near_items),
        user_sorted_indices=torch.tensor(near_samples),
        sorted_indices_numpy=near_items,
        user_sorted_indices_numpy=near_samples,
        item_semantic_emb=torch.randn(count + 1, SEMANTIC),
        user_semantic_emb=torch.randn(len(keys), SEMANTIC),
        seq_keys_to_int=keys,
        seq_int_to_keys={number: key for key, number in keys.items()},
    )
    samples = utils.data_augmentation(training, s["length"], keys)
    data = utils.SequenceDataset(args, *samples, s["length"])
    loader = DataLoader(data, batch_size=s["batch"], shuffle=True)
    model = models.TransRec(args)
    optimiser = torch.optim.Adam(model.parameters(), lr=s["learning_rate"], weight_decay=0)

    def ready() -> None:
        parameters = sum(p.numel() for p in model.parameters())
        TURNS.ready("torch", "recbole", parameters=parameters, samples=len(data), steps_an_epoch=len(loader))

    turned = Turned(TURNS, s["warmup"], ready, None)
    held = Held(loader, turned, lambda batch: (len(batch[1]), batch[1].numel()))
    with contextlib.suppress(StoppedError):
        utils.train_epoch(args, model, held, optimiser, 0)


if __name__ == "__main__":
    main()

# pyright: reportMissingImports=false
"""ICSRec by its authors' code (github.com/QinHsiu/ICSRec): their data set, model, losses and epoch, on a CPU.

Their epoch is run as it is; what it reads its batches from holds it between turns. It wants a GPU for k-means alone:
faiss' flat index on the CPU takes the place of the one on a GPU, and clusters stay on the CPU. gensim is imported there
and not used, so an empty module stands for it. Clusters are found before the first turn, of the first ten batches.
"""

import contextlib
import itertools
import json
import sys
import types
from argparse import Namespace
from pathlib import Path

from turns import Held, StoppedError, Turned, Turns, histories

TURNS, SETTINGS = Turns(), json.loads(Path(sys.argv[1]).read_text())
CODE = Path(SETTINGS["code"]) / "icsrec" / "src"

import faiss  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler  # noqa: E402

CLUSTERED = 10
"""Batches that clusters are found of."""


class First:
    """The first batches of a loader."""

    def __init__(self, loader, count: int):
        self._loader, self._count = loader, min(count, len(loader))

    def __len__(self) -> int:
        return self._count

    def __iter__(self):
        return itertools.islice(iter(self._loader), self._count)


def without_gpu() -> None:
    """The part of faiss that the authors' clustering asks for, on the CPU."""
    sys.modules["gensim"] = types.ModuleType("gensim")
    faiss.StandardGpuResources = lambda: Namespace(noTempMemory=lambda: None)
    faiss.GpuIndexFlatConfig = Namespace
    faiss.GpuIndexFlatL2 = lambda resources, width, config: faiss.IndexFlatL2(width)


def options(s: dict, folder: Path) -> Namespace:
    """The arguments of their beauty.sh, at the sizes of the contest."""
    return Namespace(
        data_dir=f"{folder}/",
        data_name="log",
        train_data_file=f"{folder}/log_1.txt",
        log_file=f"{folder}/log.out",
        item_size=s["items"] + 2,
        hidden_size=s["width"],
        num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"],
        hidden_act="gelu",
        hidden_dropout_prob=s["dropout"],
        attention_probs_dropout_prob=s["dropout"],
        initializer_range=0.02,
        max_seq_length=s["length"],
        lr=s["learning_rate"],
        weight_decay=0.0,
        batch_size=s["batch"],
        intent_num=s["clusters"],
        temperature=1.0,
        sim="dot",
        rec_weight=1.0,
        lambda_0=0.3,
        beta_0=0.1,
        cl_mode="cf",
        f_neg=True,
        noise_ratio=0.0,
        gpu_id="0",
        no_cuda=True,
        cuda_condition=False,
        log_freq=1,
    )


def main() -> None:
    s, folder = SETTINGS, Path(sys.argv[1]).parent / "icsrec"
    without_gpu()
    sys.path.insert(0, str(CODE))
    import datasets
    import models
    import trainers
    import utils

    torch.set_num_threads(s["threads"])
    utils.set_seed(s["seed"])
    folder.mkdir()
    offsets, items = histories(s["events"])
    with (folder / "log.txt").open("w") as out:
        for user, (start, stop) in enumerate(itertools.pairwise(offsets)):
            out.write(" ".join(map(str, [user + 1, *items[start:stop]])) + "\n")
    datasets.DS(f"{folder}/log.txt", f"{folder}/log_1.txt", s["length"])
    args = options(s, folder)
    _, sequences, *_ = utils.get_user_seqs(args.train_data_file)
    data = datasets.RecWithContrastiveLearningDataset(args, sequences, data_type="train")
    sizes = {"batch_size": s["batch"]}
    training = DataLoader(data, sampler=RandomSampler(data), **sizes)
    swept = First(DataLoader(data, sampler=SequentialSampler(data), **sizes), CLUSTERED)
    trainers.KMeans = lambda device, **rest: models.KMeans(device=torch.device("cpu"), **rest)
    model = models.SASRecModel(args)

    def ready() -> None:
        parameters = sum(p.numel() for p in model.parameters())
        TURNS.ready("torch", parameters=parameters, samples=len(data), steps_an_epoch=len(training))

    turned = Turned(TURNS, s["warmup"], ready, None)
    held = Held(training, turned, lambda batch: (len(batch[1]), batch[1].numel()))
    trainer = trainers.ICSRecTrainer(model, held, swept, None, None, args)
    with contextlib.suppress(StoppedError):
        trainer.train(0)


if __name__ == "__main__":
    main()

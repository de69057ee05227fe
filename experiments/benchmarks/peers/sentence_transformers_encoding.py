# pyright: reportMissingImports=false
"""Vectors of texts by sentence-transformers, for `encoding_speed.py`: it sorts by length and pads batches of 32."""

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from turns import Turns, timed_lists


def main() -> None:
    turns = Turns()
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(settings["threads"])
    texts = json.loads(Path(settings["texts"]).read_text())
    model = SentenceTransformer(settings["folder"], device="cpu")
    model.encode(texts[:64])
    turns.ready("torch", "sentence-transformers")
    while (command := turns.next())["do"] != "stop":
        turns.say(timed_lists(lambda: model.encode(texts, show_progress_bar=False), command.get("out")))


if __name__ == "__main__":
    main()

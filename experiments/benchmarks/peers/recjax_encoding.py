"""Vectors of texts by recjax, for `encoding_speed.py`."""

import json
import sys
from pathlib import Path

from turns import Turns, timed_lists

from recjax.parallel.startup import disable_faulty_cpu_fusion, spread_over_cpu_cores
from recjax.text.encoder import encode_texts
from recjax.text.folder import read_folder


def main() -> None:
    turns = Turns()
    settings = json.loads(Path(sys.argv[1]).read_text())
    disable_faulty_cpu_fusion()
    spread_over_cpu_cores()
    texts = json.loads(Path(settings["texts"]).read_text())
    encoder = read_folder(Path(settings["folder"]), dtype=settings["extra"] or "float32")
    encode_texts(encoder, texts)  # compiles every shape
    turns.ready("jax")
    while (command := turns.next())["do"] != "stop":
        turns.say(timed_lists(lambda: encode_texts(encoder, texts), command.get("out")))


if __name__ == "__main__":
    main()

# pyright: reportMissingImports=false
"""Vectors of texts by ONNX Runtime, for `encoding_speed.py`: the exported encoder, its attention fused by ONNX's own
optimiser, texts sorted by length and padded in batches of 32. `extra` may be "int8": weights rounded, dynamically.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from tokenizers import Tokenizer
from transformers import AutoModel
from turns import Turns, timed_lists

BATCH = 32
NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Hidden(torch.nn.Module):
    """The encoder from three arrays to its last hidden states, which the exporter takes."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def exported(folder: Path, scratch: Path, kind: str) -> Path:
    """Path of the encoder as an optimised ONNX file."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    plain, fused = scratch / "plain.onnx", scratch / "fused.onnx"
    axes = {name: {0: "rows", 1: "length"} for name in (*NAMES, "hidden")}
    ones = torch.ones((2, 8), dtype=torch.int64)
    torch.onnx.export(
        Hidden(model),
        (ones, ones, 0 * ones),
        str(plain),
        input_names=list(NAMES),
        output_names=["hidden"],
        dynamic_axes=axes,
        dynamo=False,
    )
    config = model.config
    graph = optimize_model(str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size)
    print("fused:", graph.get_fused_operator_statistics(), file=sys.stderr)
    graph.save_model_to_file(str(fused))
    if kind == "int8":
        quantize_dynamic(fused, scratch / "int8.onnx", extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
        return scratch / "int8.onnx"
    return fused


def main() -> None:
    turns = Turns()
    settings = json.loads(Path(sys.argv[1]).read_text())
    texts = json.loads(Path(settings["texts"]).read_text())
    folder = Path(settings["folder"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    with tempfile.TemporaryDirectory() as scratch:
        path = exported(folder, Path(scratch), settings["extra"])
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings["max_tokens"])

    def encode() -> np.ndarray:
        tokens = [found.ids for found in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        vectors = None
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids = np.zeros((len(chosen), len(tokens[chosen[0]])), np.int64)
            mask = np.zeros_like(ids)
            for row, number in enumerate(chosen):
                ids[row, : len(tokens[number])], mask[row, : len(tokens[number])] = tokens[number], 1
            hidden = session.run(None, dict(zip(NAMES, (ids, mask, 0 * ids), strict=True)))[0]
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            if vectors is None:
                vectors = np.zeros((len(texts), mean.shape[1]), np.float32)
            vectors[chosen] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        assert vectors is not None
        return vectors

    encode()
    turns.ready("onnxruntime")
    while (command := turns.next())["do"] != "stop":
        turns.say(timed_lists(encode, command.get("out")))


if __name__ == "__main__":
    main()

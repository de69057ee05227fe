"""Writes `tests/text/twins/`: what PyTorch makes of a random MPNet, a random BERT, and all-MiniLM-L6-v2.

Run by hand, in an environment of its own, when a family is added; the files it writes are kept with the tests:

    python -m venv torch-env && torch-env/bin/pip install torch transformers safetensors tokenizers
    torch-env/bin/python tests/text/make_twins.py MINILM_FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, MPNetConfig, MPNetModel

sys.path.insert(0, str(Path(__file__).parent))
from titles import TITLES

TWINS = Path(__file__).parent / "twins"
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 162,
}


def tokenizer(special: list[str]) -> Tokenizer:
    """A word-piece tokenizer whose pieces are letters, digits and a few words; `special` is in order of id."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'&()-/%"
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), "the", "with", "for", "red", "set", "##ing"]
    pad, unknown, start, end = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=unknown))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing((end, pieces.index(end)), (start, pieces.index(start)))
    made.enable_padding(pad_id=pieces.index(pad), pad_token=pad)
    return made


def vectors(model: torch.nn.Module, made: Tokenizer, pooling: str, normalise: bool) -> torch.Tensor:
    """float32 [titles, d]."""
    rows = []
    with torch.no_grad():
        for encoding in made.encode_batch(TITLES):
            ids = torch.tensor([[i for i, kept in zip(encoding.ids, encoding.attention_mask) if kept]])  # noqa: B905
            hidden = model(ids).last_hidden_state[0]
            rows.append(hidden.mean(0) if pooling == "mean" else hidden[0])
    found = torch.stack(rows)
    return torch.nn.functional.normalize(found) if normalise else found


def write(name: str, model: torch.nn.Module, special: list[str], pooling: str, normalise: bool, longest: int) -> None:
    """A folder of a random model and its vectors."""
    torch.manual_seed(len(name))
    for value in model.parameters():  # larger than the initialiser's, so that no part of the model hides
        torch.nn.init.normal_(value, std=0.3)
    folder = TWINS / name
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    made = tokenizer(special)
    made.enable_truncation(longest)
    made.save(str(folder / "tokenizer.json"))
    kinds = ["Transformer", "Pooling", "Normalize"][: 3 if normalise else 2]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    mode = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    content = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": SIZES["hidden_size"], **mode},
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
    }
    for file, value in content.items():
        (folder / file).write_text(json.dumps(value, indent=1) + "\n")
    save_file({"vectors": vectors(model, made, pooling, normalise).contiguous()}, TWINS / f"{name}.safetensors")


def main(minilm: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    config = BertConfig(vocab_size=120, layer_norm_eps=1e-12, **SIZES)
    write("bert", BertModel(config, add_pooling_layer=False), special, "cls", False, 160)
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]  # MPNet's padding is token 1
    config = MPNetConfig(vocab_size=120, layer_norm_eps=1e-5, **SIZES)
    write("mpnet", MPNetModel(config, add_pooling_layer=False), special, "mean", True, 160)
    made = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    made.enable_truncation(256)
    found = vectors(AutoModel.from_pretrained(minilm).eval(), made, "mean", True)
    save_file({"vectors": found.contiguous()}, TWINS / "minilm.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

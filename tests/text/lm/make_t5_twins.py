"""Writes `tests/text/lm/twins/t5` and `t5-gated`: what PyTorch makes of a random T5 of each kind.

Run by hand, in an environment of its own; the files it writes are stored with the tests:

    python -m venv torch-env && torch-env/bin/pip install torch transformers safetensors tokenizers
    torch-env/bin/python tests/text/lm/make_t5_twins.py
"""

import shutil

import torch
from make_twins import TWINS, tokenizer
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

SIZES = {
    "vocab_size": 40,
    "d_model": 8,
    "num_heads": 2,
    "d_kv": 3,
    "d_ff": 12,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    "eos_token_id": 2,
}
KINDS = {
    "t5": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "t5-gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def main() -> None:
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, SIZES["vocab_size"], (2, 30), generator=random)
    targets = torch.randint(1, SIZES["vocab_size"], (2, 14), generator=random)
    mask = torch.ones_like(tokens)
    mask[1, 22:] = 0
    arrays = {name: each.to(torch.int32) for name, each in (("tokens", tokens), ("targets", targets), ("mask", mask))}
    for number, (name, options) in enumerate(KINDS.items()):
        shutil.rmtree(TWINS / name, ignore_errors=True)
        torch.manual_seed(number)
        model = T5ForConditionalGeneration(T5Config(**SIZES, **options)).eval()
        with torch.no_grad():
            for path, value in model.named_parameters():  # large, so that no part of the model hides
                torch.nn.init.normal_(value, mean=float("layer_norm" in path), std=0.4)
            model.tie_weights()
            made = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=targets)
        arrays[f"{name}/logits"] = made.logits.contiguous()
        arrays[f"{name}/states"] = made.encoder_last_hidden_state.contiguous()
        model.save_pretrained(TWINS / name)
        tokenizer().save(str(TWINS / name / "tokenizer.json"))
    save_file(arrays, TWINS / "t5.safetensors")


if __name__ == "__main__":
    main()

"""Writes `tests/text/lm/twins/`: what PyTorch makes of a random Llama, Qwen2 and Qwen3.

Run by hand, in an environment of its own, when a family is added; the files it writes are stored with the tests:

    python -m venv torch-env && torch-env/bin/pip install torch transformers safetensors tokenizers
    torch-env/bin/python tests/text/lm/make_twins.py
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

TWINS = Path(__file__).parent / "twins"
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
CONFIGS = {
    "llama": LlamaConfig(
        **SIZES, rope_parameters={"rope_theta": 500.0, **LLAMA3}, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=False,
    ),
    "smollm2": LlamaConfig(**SIZES, rope_parameters={"rope_theta": 100.0, "rope_type": "default"},
                           tie_word_embeddings=True, rms_norm_eps=1e-5),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=6, tie_word_embeddings=True),
}  # fmt: skip


def tokenizer() -> Tokenizer:
    """Letters, spaces and three merges, as bytes; tokens 0 to 2 are special."""
    letters = [*"abcdefghijklmnopqrstuvwxyz.,!?", "Ġ"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocabulary = ["<pad>", "<s>", "</s>", *letters, *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, merges))
    made.add_special_tokens(vocabulary[:3])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def main() -> None:
    arrays = {}
    tokens = torch.randint(0, SIZES["vocab_size"], (2, 30), generator=torch.Generator().manual_seed(0))
    arrays["tokens"] = tokens.to(torch.int32)
    for number, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for path, value in model.named_parameters():  # large, so that no part of the model hides
                torch.nn.init.normal_(value, mean=float("norm" in path), std=0.3)
            model.tie_weights()
            arrays[f"{name}/logits"] = model(tokens).logits.contiguous()
            made = model.generate(
                tokens[:, :10], attention_mask=torch.ones(2, 10), max_new_tokens=12, do_sample=False, pad_token_id=0
            )
            arrays[f"{name}/generated"] = made[:, 10:].to(torch.int32).contiguous()
        shutil.rmtree(TWINS / name, ignore_errors=True)
        # Qwen2's file is cut in several, with an index.
        model.save_pretrained(TWINS / name, max_shard_size="12KB" if name == "qwen2" else "1GB")
        tokenizer().save(str(TWINS / name / "tokenizer.json"))
    save_file(arrays, TWINS / "expected.safetensors")


if __name__ == "__main__":
    main()

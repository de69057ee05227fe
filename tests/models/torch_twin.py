"""The published RecGPT network and tokenizer in plain PyTorch, as a second opinion on ours.

Needs PyTorch; tests that use it live skip without. The stored fixtures were made once by

    python tests/models/torch_twin.py tests/models/fixtures

with PyTorch 2.13: `model.pt` and `tokenizer.pt` (state dicts with the published names) and `expected.npz`.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTH, LAYERS, HEADS, SLOTS, AUX, VOCABULARY, ROWS, TOKENS = 32, 2, 2, 4, 8, 50, 60, 32
LEVELS = (7, 7)
ITEMS = 10
HISTORIES = np.array([[3, 7, 1, 10, 2, 5], [9, 4, 6, 0, 0, 0]])


class Conv1D(nn.Module):
    """A linear layer stored [in, out]."""

    def __init__(self, inner, outer):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, outer) * 0.2)
        self.bias = nn.Parameter(torch.randn(outer) * 0.1)

    def forward(self, x):
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = Conv1D(WIDTH, 3 * WIDTH), Conv1D(WIDTH, WIDTH)
        item = torch.arange(TOKENS) // SLOTS
        self.register_buffer("bias", (item[:, None] >= item[None])[None, None])
        self.register_buffer("masked_bias", torch.tensor(-1e4))

    def forward(self, x, real):
        rows, length, _ = x.shape
        heads = (part.view(rows, length, HEADS, -1).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))
        query, key, value = heads
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        allowed = self.bias[:, :, :length, :length] & real[:, None, None, :]
        weights = scores.masked_fill(~allowed, -1e30).softmax(dim=-1)
        return self.c_proj((weights @ value).transpose(1, 2).reshape(rows, length, WIDTH))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(WIDTH, 4 * WIDTH), Conv1D(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = self.c_fc(x)
        return self.c_proj(0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH, eps=1e-5), Attention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-5), FeedForward()

    def forward(self, x, real):
        x = x + self.attn(self.ln_1(x), real)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(ROWS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH, eps=1e-5)


class Twin(nn.Module):
    """Tokens [rows, length], sub-vectors [rows, length, AUX] -> logits [rows, length, VOCABULARY]."""

    def __init__(self):
        super().__init__()
        self.gpt2model = GPT2()
        self.pred_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.linear_layer = nn.Linear(AUX, WIDTH, bias=False)
        self.norm_seq, self.norm_aux = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, tokens, parts):
        real = tokens != VOCABULARY - 1
        x = self.norm_seq(self.gpt2model.wte(tokens)) + self.norm_aux(self.linear_layer(parts)) * real[..., None]
        x = x + self.gpt2model.wpe(torch.arange(tokens.shape[1]))
        for block in self.gpt2model.h:
            x = block(x, real)
        return self.pred_head(self.gpt2model.ln_f(x))


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_layers = nn.ModuleList(nn.Linear(AUX, AUX) for _ in range(3))
        self.output_linear = nn.Linear(AUX, AUX)


class Position(nn.Module):
    def __init__(self):
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(AUX, 4 * AUX), nn.Linear(4 * AUX, AUX)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(AUX)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(), Position()
        self.input_sublayer, self.output_sublayer = Residual(), Residual()


class Coder(nn.Module):
    """Encoder or decoder of the tokenizer: its parameters only, for codes depend on neither."""

    def __init__(self, output):
        super().__init__()
        self.position_emb = nn.Embedding(SLOTS, AUX)
        self.transformer_layers = nn.ModuleList(Layer() for _ in range(2))
        if output:
            size = SLOTS * AUX
            self.linear_layer = nn.Sequential(nn.Linear(AUX, size), nn.ReLU(), nn.Linear(size, size))


class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.project_in, self.project_out = nn.Linear(AUX, len(LEVELS)), nn.Linear(len(LEVELS), AUX)

    def forward(self, parts):
        levels = torch.tensor(LEVELS)
        half = (levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        digits = torch.round(torch.tanh(self.project_in(parts) + torch.tan(offset / half)) * half - offset)
        places = torch.tensor([math.prod(LEVELS[:place]) for place in range(len(LEVELS))])
        return ((digits + levels // 2) * places).sum(dim=-1).long()


class TwinTokenizer(nn.Module):
    """Vectors [n, SLOTS * AUX] -> codes [n, SLOTS]."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.quantizer = Coder(output=False), Coder(output=True), Quantizer()

    def forward(self, vectors):
        return self.quantizer(vectors.view(len(vectors), SLOTS, AUX))


def expected(model: Twin, tokenizer: TwinTokenizer, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Codes of items 1.., and logits and loss of `HISTORIES`; row 0 of `vectors` is padding."""
    with torch.no_grad():
        codes = tokenizer(torch.tensor(vectors)).numpy()
        codes[0] = 0
        real = (HISTORIES > 0)[..., None]
        tokens = torch.tensor(np.where(real, codes[HISTORIES], VOCABULARY - 1).reshape(len(HISTORIES), -1))
        parts = torch.tensor(vectors[HISTORIES].reshape(*tokens.shape, AUX))
        logits = model(tokens, parts)
        labels = torch.where(tokens == VOCABULARY - 1, -100, tokens)
        loss = functional.cross_entropy(logits[:, :-SLOTS].reshape(-1, VOCABULARY), labels[:, SLOTS:].reshape(-1))
    return {"vectors": vectors, "codes": codes, "logits": logits.numpy(), "loss": loss.numpy()}


def make(seed: int = 0) -> tuple[Twin, TwinTokenizer, np.ndarray]:
    """Random weights, biases and gains included, and vectors of items, the last of which has none."""
    torch.manual_seed(seed)
    model, tokenizer = Twin().eval(), TwinTokenizer().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    vectors = np.random.default_rng(seed).normal(size=(ITEMS + 1, SLOTS * AUX)).astype(np.float32)
    vectors[0] = vectors[ITEMS] = 0.0
    return model, tokenizer, vectors


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    twin, twin_tokenizer, item_vectors = make()
    torch.save(twin.state_dict(), folder / "model.pt")
    torch.save(twin_tokenizer.state_dict(), folder / "tokenizer.pt")
    np.savez_compressed(folder / "expected.npz", **expected(twin, twin_tokenizer, item_vectors))

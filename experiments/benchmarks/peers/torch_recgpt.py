# pyright: reportMissingImports=false
"""RecGPT's published network in plain PyTorch, written for the benchmark and fed as published.

One history a row, padded to the longest that there may be; each batch brings the text vectors of its items. No straw
man beside that: tables in memory, fused AdamW, the attention kernel of PyTorch, one mask for the batch.
"""

import itertools
import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from turns import Block, Settings, Turns, histories


class Layer(nn.Module):
    """A GPT-2 block."""

    def __init__(self, s: Settings):
        super().__init__()
        self.heads, self.rate = s.heads, s.dropout
        self.attention_norm, self.inner_norm = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.fused, self.output = nn.Linear(s.width, 3 * s.width), nn.Linear(s.width, s.width)
        self.up, self.down = nn.Linear(s.width, 4 * s.width), nn.Linear(4 * s.width, s.width)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        q, k, v = (
            part.reshape(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.fused(self.attention_norm(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.rate if self.training else 0.0)
        x = x + self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, length, width)))
        return x + self.dropout(self.down(F.gelu(self.up(self.inner_norm(x)), approximate="tanh")))


class RecGPT(nn.Module):
    """Tokens int [rows, l], parts of vectors [rows, l, aux] -> logits [rows, l, vocabulary]."""

    def __init__(self, s: Settings, slots: int, aux: int):
        super().__init__()
        self.codes, self.places = nn.Embedding(s.vocabulary, s.width), nn.Embedding(s.length * slots, s.width)
        self.aux, self.head = nn.Linear(aux, s.width, bias=False), nn.Linear(s.width, s.vocabulary, bias=False)
        self.code_norm, self.aux_norm, self.norm = (nn.LayerNorm(s.width) for _ in range(3))
        self.layers, self.dropout = nn.ModuleList(Layer(s) for _ in range(s.layers)), nn.Dropout(s.dropout)
        item = torch.arange(s.length * slots) // slots
        self.padding = s.vocabulary - 1
        self.register_buffer("allowed", item[:, None] >= item[None])
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        real = tokens != self.padding
        x = self.code_norm(self.codes(tokens)) + self.aux_norm(self.aux(parts)) * real[..., None]
        x = self.dropout(x + self.places.weight)
        # Finite, so that rows of padding cannot become NaN, and what the CPU kernels with dropout are fastest with.
        mask = torch.zeros(()).masked_fill(~(self.allowed & real[:, None, None, :]), -1e9)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.norm(x))


def main() -> None:
    turns, s = Turns(), Settings.read(sys.argv[1])
    torch.set_num_threads(s.threads)
    torch.manual_seed(s.seed)
    offsets, items = histories(s.events)
    with np.load(s.table, allow_pickle=False) as table:
        codes, vectors = table["codes"].astype(np.int64), table["vectors"]
    slots, padding = codes.shape[1], s.vocabulary - 1
    codes[0] = padding
    model = RecGPT(s, slots, vectors.shape[1] // slots)
    optimiser = torch.optim.AdamW(model.parameters(), lr=s.learning_rate, weight_decay=0.01, fused=True)
    rows = np.zeros((len(offsets) - 1, s.length), np.int64)
    for row, (start, stop) in zip(rows, itertools.pairwise(offsets), strict=True):
        kept = items[max(start, stop - s.length) : stop]
        row[: len(kept)] = kept  # padded at the right, as the published training is
    random = np.random.default_rng(s.seed)

    def step() -> tuple[int, int]:
        batch = rows[random.choice(len(rows), s.batch, replace=False)]
        tokens = torch.from_numpy(codes[batch].reshape(s.batch, -1))
        parts = torch.from_numpy(vectors[batch].reshape(*tokens.shape, -1))
        targets = F.pad(tokens[:, slots:], (0, slots), value=padding)
        optimiser.zero_grad(set_to_none=True)
        logits = model(tokens, parts)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=padding).backward()
        optimiser.step()
        return int((batch[:, 1:] > 0).sum()), batch.size

    for _ in range(s.warmup):
        step()
    turns.ready("torch", parameters=sum(p.numel() for p in model.parameters()))
    while (command := turns.next())["do"] != "stop":
        block = Block(command["seconds"])
        while not block.over:
            block.add(*step())
        turns.say(block.result())


if __name__ == "__main__":
    main()

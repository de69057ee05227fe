# pyright: reportMissingImports=false
"""Plain SASRec in PyTorch, written for the benchmark: padded batches, nothing exotic, nothing careless.

The network is the paper's (Kang & McAuley 2018) with biases in every projection. Rows are built once, outside the
loop; each batch is one slice of them. Padding is on the left, and keys of padding are masked. Adam is the fused one.

`extra` may be "compact": logits are made only where there is a target, which the usual padded implementation (all
positions, `ignore_index`) does not do, though it is two lines; without padding in the head, what remains of the
difference to packed rows is the body.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from turns import Block, Settings, Turns, histories, padded, timed_lists


class Layer(nn.Module):
    """Attention and feed-forward network, normalised as in the paper."""

    def __init__(self, s: Settings):
        super().__init__()
        self.heads, self.rate = s.heads, s.dropout
        self.query_norm, self.inner_norm = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.query, self.output = nn.Linear(s.width, s.width), nn.Linear(s.width, s.width)
        self.key_value = nn.Linear(s.width, 2 * s.width)
        self.up, self.down = nn.Linear(s.width, s.width), nn.Linear(s.width, s.width)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        query = self.query_norm(x)
        key, value = self.key_value(x).chunk(2, dim=-1)
        q, k, v = (
            t.reshape(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for t in (self.query(query), key, value)
        )
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        x = query + self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, length, width)))
        x = self.inner_norm(x)
        return x + self.dropout(self.down(self.dropout(F.relu(self.up(x)))))


class SASRec(nn.Module):
    def __init__(self, s: Settings):
        super().__init__()
        self.scale = s.width**0.5
        self.items = nn.Embedding(s.items + 1, s.width, padding_idx=0)
        self.positions = nn.Embedding(s.length, s.width)
        self.blocks = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm, self.dropout = nn.LayerNorm(s.width), nn.Dropout(s.dropout)
        self.register_buffer("blocked", torch.full((s.length, s.length), -1e9).triu(1))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """[rows, length] item ids -> [rows, length, width]."""
        x = self.dropout(self.items(items) * self.scale + self.positions.weight)
        # A finite additive mask is what the CPU kernels with dropout are fastest with (0.12 s for what takes 0.17 with
        # a boolean one and 0.16 with is_causal), and rows of padding cannot become NaN.
        mask = self.blocked.masked_fill((items == 0)[:, None, None, :], -1e9)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


def loss(model: SASRec, s: Settings, items: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    hidden, table = model(items), model.items.weight
    real = targets > 0
    if s.loss == "full":
        if s.extra == "compact":
            return F.cross_entropy(hidden[real] @ table[1:].T, targets[real] - 1)
        logits = hidden.reshape(-1, s.width) @ table[1:].T
        return F.cross_entropy(logits, targets.reshape(-1) - 1, ignore_index=-1)
    positive = (hidden * model.items(targets)).sum(-1)
    if s.loss == "bce":
        drawn = torch.randint(1, s.items + 1, targets.shape)
        negative = (hidden * model.items(drawn)).sum(-1)
        return (F.softplus(-positive) + F.softplus(negative))[real].sum() / real.sum()
    drawn = torch.randint(1, s.items + 1, (len(items), s.negatives))
    negative = hidden @ model.items(drawn).transpose(1, 2)
    negative = negative.masked_fill(drawn[:, None] == targets[..., None], -torch.inf)
    return F.cross_entropy(torch.cat([positive[..., None], negative], -1)[real], torch.zeros_like(targets[real]))


def batches(rows: np.ndarray, size: int, seed: int):
    """(inputs, targets) for ever; the last batch of an epoch may be short."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(rows))
        for start in range(0, len(order), size):
            batch = torch.from_numpy(rows[order[start : start + size]])
            yield batch[:, :-1], batch[:, 1:]


@torch.inference_mode()
def recommend(model: SASRec, s: Settings, offsets: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The best unseen items of everyone."""
    model.eval()
    rows, lists = padded(offsets, items, s.length), []
    for start in range(0, len(rows), 256):
        stop = min(start + 256, len(rows))
        scores = model(torch.from_numpy(rows[start:stop]))[:, -1] @ model.items.weight.T
        counts = np.diff(offsets[start : stop + 1])
        users = torch.from_numpy(np.repeat(np.arange(stop - start), counts))
        scores[users, torch.from_numpy(items[offsets[start] : offsets[stop]])] = -torch.inf
        scores[:, 0] = -torch.inf
        lists.append(scores.topk(s.list_length).indices.numpy())
    model.train()
    return np.concatenate(lists)


def main() -> None:
    turns, s = Turns(), Settings.read(sys.argv[1])
    torch.set_num_threads(s.threads)
    torch.manual_seed(s.seed)
    offsets, items = histories(s.events)
    rows = padded(offsets, items, s.length + 1)
    model = SASRec(s)
    optimiser = torch.optim.Adam(model.parameters(), lr=s.learning_rate, betas=(0.9, 0.98), fused=True)
    source = batches(rows, s.batch, s.seed)

    def step() -> tuple[int, int]:
        inputs, targets = next(source)
        # A target whose input is padding is the first item of a history: nothing is known before it.
        targets = torch.where(inputs > 0, targets, 0)
        optimiser.zero_grad(set_to_none=True)
        loss(model, s, inputs, targets).backward()
        optimiser.step()
        return int((targets > 0).sum()), targets.numel()

    for _ in range(s.warmup):
        step()
    turns.ready("torch", parameters=sum(p.numel() for p in model.parameters()))
    while (command := turns.next())["do"] != "stop":
        if command["do"] == "train":
            block = Block(command["seconds"])
            while not block.over:
                block.add(*step())
            turns.say(block.result())
        else:
            turns.say(timed_lists(lambda: recommend(model, s, offsets, items), command.get("out")))


if __name__ == "__main__":
    main()

"""Windows of a history, and a neural process over them (Garnelo et al. 2018, with the attention of Kim et al. 2019)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.ops.contrast import gaussian_kl, gaussian_w2
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Bool, Float, Int

DAY = 86_400


class Process(nn.Module):
    """The network of `recjax.models.idnp.IDNP`, which says what the attributes are; `width` is that of the inputs."""

    heads: int
    dropout: float
    window: int
    stride: int
    dilations: tuple[int, ...]
    process: bool
    latent: bool
    distance: Literal["kl", "w2"]

    def dense(self, name: str, x: Array, *widths: int) -> Array:
        for number, width in enumerate(widths):
            x = Dense(width, name=f"{name}_{number}")(jax.nn.gelu(x) if number else x)
        return x

    def windows(self, x: Float[Array, "b l d"], there: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Of the window that ends at each event: the sum of its frames by learned shares, then of scales."""
        frames, present = (recent(each, self.window) for each in (x * there[..., None], there))
        scales = []
        for number, dilation in enumerate(self.dilations):
            causal, name = [(2 * dilation, 0)], f"dilated_{number}"
            seen = jax.nn.gelu(nn.Conv(x.shape[-1], (3,), kernel_dilation=dilation, padding=causal, name=name)(frames))
            shares = jax.nn.softmax(jnp.where(present, self.dense(f"frame_{number}", seen, 1)[..., 0], -1e9))
            scales.append(jnp.einsum("blw,blwd->bld", shares, seen))
        seen = jnp.stack(scales, axis=2)
        return jnp.einsum("bls,blsd->bld", jax.nn.softmax(self.dense("scale", seen, 1)[..., 0]), seen)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        there: Bool[Array, "b l"],
        times: Int[Array, "b l"],
        cut: Int[Array, " b"],
        asked: Int[Array, "b a"],
        noise: Float[Array, "b d"] | None = None,
    ) -> tuple[Float[Array, "b a d"], Float[Array, " b"]]:
        """Interests of users at the times of the events `asked`, and the distance of the two Gaussians.

        Args:
            x: vectors of the events.
            there: False where padded.
            times: unix seconds.
            cut: the last event of the context.
            asked: events, each asked for what follows it.
            noise: that z is drawn with, from all windows; None for its mean, from the context.
        """
        width, places = x.shape[-1], jnp.arange(x.shape[1])
        windows, apart = self.windows(Dropout(self.dropout)(x), there), jnp.zeros(len(x))
        if not self.process:
            return self.dense("decoder", take_position(windows, asked), 2 * width, width), apart
        days = (times - take_position(times, cut)[:, None]).astype(jnp.float32)[..., None] / DAY
        days = jnp.sign(days) * jnp.log1p(jnp.abs(days))
        every = there & ((cut[:, None] - places) % self.stride == 0)
        context, now = every & (places <= cut[:, None]), take_position(days, asked)
        read, keys = self.dense("query", now, width, width), self.dense("key", days, width, width)
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        parts = [attention(read, keys, windows, mask=context[:, None, None])]
        if self.latent:
            told = self.dense("told", jnp.concatenate([windows, days], axis=-1), width, width)
            mean = lambda mask: jnp.sum(told * mask[..., None], axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None]  # noqa: E731
            found = self.dense("latent", jax.nn.gelu(jnp.stack([mean(every), mean(context)])), 2 * width)
            means, spreads = found[..., :width], 0.1 + 0.9 * jax.nn.sigmoid(found[..., width:])
            apart = {"kl": gaussian_kl, "w2": gaussian_w2}[self.distance](means[0], spreads[0], means[1], spreads[1])
            z = means[1] if noise is None else means[0] + spreads[0] * noise
            parts.append(jnp.broadcast_to(z[:, None], parts[0].shape))
        decoded = jnp.concatenate([*parts, self.dense("time", now, width)], axis=-1)
        return self.dense("decoder", Dropout(self.dropout)(decoded), 2 * width, width), apart


def recent(x: Array, count: int) -> Array:
    """[b, l, count, ...], the last `count` of `x` [b, l, ...] at each position, 0 before the first."""
    padded = jnp.pad(x, [(0, 0), (count - 1, 0)] + [(0, 0)] * (x.ndim - 2))
    return jnp.stack([padded[:, place : place + x.shape[1]] for place in range(count)], axis=2)

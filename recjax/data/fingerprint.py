"""The fingerprint of a dataset: a hash of its canonical content, printed beside every result."""

import hashlib
import json

import numpy as np
import polars as pl


def fingerprint(
    user_ids: list[str],
    item_ids: list[str],
    offsets: np.ndarray,
    items: np.ndarray,
    timestamps: np.ndarray,
    values: np.ndarray | None,
    catalog: pl.DataFrame,
) -> str:
    """sha256 (hex) of the content, independent of machine, library versions, column order and files."""
    digest = hashlib.sha256(b"recjax dataset 1")

    def add(label: str, data: bytes) -> None:
        digest.update(f"{label}:{len(data)};".encode())
        digest.update(data)

    def add_texts(label: str, texts: list[str | None]) -> None:
        encoded = [b"" if text is None else text.encode() for text in texts]
        sizes = np.array([-1 if text is None else len(data) for text, data in zip(texts, encoded, strict=True)], "<i8")
        add(label, sizes.tobytes() + b"".join(encoded))

    add_texts("users", list(user_ids))
    add_texts("items", list(item_ids))
    add("offsets", offsets.astype("<i8").tobytes())
    add("events", items.astype("<i4").tobytes())
    add("times", timestamps.astype("<i8").tobytes())
    if values is not None:
        canonical = np.where(np.isnan(values), np.float32("nan"), values)  # one bit pattern for every NaN
        add("values", canonical.astype("<f4").tobytes())
    for column in sorted(catalog.columns):
        texts = catalog[column].to_list()
        add_texts(
            f"catalog {column}",
            [text if text is None or isinstance(text, str) else json.dumps(text, default=str) for text in texts],
        )
    return digest.hexdigest()

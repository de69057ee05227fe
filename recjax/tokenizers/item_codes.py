"""The codes of a catalog, and the folder of them and of the tokenizer's state.

Every file has a digest of its content, so that a damaged one is refused; files of earlier versions, which have none,
are read as they are.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from recjax import array_files
from recjax.array_files import DamagedFileError
from recjax.files import read_json, replacing, sealed, unsealed
from recjax.typing import InputError

FORMAT = "recjax item codes 1"
CODES, DESCRIPTION, TOKENIZER = "codes.safetensors", "codes.json", "tokenizer.safetensors"

State = Mapping[str, Any]
"""State of a fitted tokenizer: nested dicts of NumPy arrays."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """A tuple of codes for each item of a catalog.

    Attributes:
        codes: int32 [n + 1, slots]; code s of an item is in 0 .. sizes[s] - 1. Row 0, padding, is zeros.
        sizes: codes there are in each slot.
        ordered: whether a code refines the one before it (residual quantisers), so that prefixes mean something.
    """

    codes: np.ndarray
    sizes: tuple[int, ...]
    ordered: bool

    def __post_init__(self) -> None:
        codes, sizes = np.asarray(self.codes, np.int32), tuple(int(size) for size in self.sizes)
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or not len(codes):
            raise InputError(f"codes have shape {codes.shape}, expected [items + 1, {len(sizes)}]")
        if codes[0].any():
            raise InputError(f"the codes of padding (row 0) are {codes[0].tolist()}, expected zeros")
        outside = (codes < 0) | (codes >= np.array(sizes))
        if outside.any():
            item, slot = (int(index) for index in np.argwhere(outside)[0])
            raise InputError(
                f"item {item} has code {codes[item, slot]} in slot {slot}, expected 0 to {sizes[slot] - 1}"
            )
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "sizes", sizes)

    @property
    def n_items(self) -> int:
        """Items of the catalog, padding not counted."""
        return len(self.codes) - 1

    @property
    def slots(self) -> int:
        return len(self.sizes)

    @property
    def tuples(self) -> int:
        """Number of possible tuples."""
        return math.prod(self.sizes)

    @property
    def fingerprint(self) -> str:
        """sha256 of the codes; hex."""
        return _fingerprint(self.codes)

    def save(self, folder: Path, state: State | None = None, **description: Any) -> None:
        """Writes the folder, each file atomically, the description last.

        Args:
            folder: made if absent.
            state: of the tokenizer, kept beside the codes.
            description: more for `codes.json`, as JSON values.
        """
        folder.mkdir(parents=True, exist_ok=True)
        array_files.write(folder / CODES, {"codes": self.codes})
        if state is not None:
            flat = flat_state(state)
            array_files.write(folder / TOKENIZER, flat)
        entries = {
            "format": FORMAT,
            "items": self.n_items,
            "sizes": list(self.sizes),
            "ordered": self.ordered,
            "fingerprint": self.fingerprint,
            **description,
        }
        with replacing(folder / DESCRIPTION) as new:
            new.write_text(json.dumps(sealed(entries), indent=2) + "\n", encoding="utf-8")


def load_codes(folder: Path) -> ItemCodes:
    """The codes that `ItemCodes.save` wrote.

    Raises:
        InputError: a file is absent or damaged, or the two are not of one piece.
    """
    description = load_description(folder)
    codes = _arrays(folder / CODES).get("codes")
    if codes is None or description.get("fingerprint") != _fingerprint(codes):
        raise InputError(f"{folder}: {CODES} does not hold the codes that {DESCRIPTION} describes; tokenize again")
    return ItemCodes(codes, tuple(description["sizes"]), bool(description["ordered"]))


def load_description(folder: Path) -> dict[str, Any]:
    """The entries of `codes.json`.

    Raises:
        InputError: it is absent or damaged.
    """
    path = folder / DESCRIPTION
    description = read_json(path, absent=f"so {folder} holds no item codes")
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(f"{path} is not a description of item codes, expected format {FORMAT!r}")
    return unsealed(description, path)


def load_state(folder: Path) -> dict[str, Any]:
    """The tokenizer's state that `ItemCodes.save` wrote.

    Raises:
        InputError: it is absent or damaged.
    """
    return nested_state(_arrays(folder / TOKENIZER))


def flat_state(state: State) -> dict[str, np.ndarray]:
    """A tokenizer's state as arrays by path, `a/b`."""
    return {name: np.asarray(array) for name, array in flatten_dict(dict(state), sep="/").items()}


def nested_state(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The state that `flat_state` has flattened."""
    return unflatten_dict(dict(arrays), sep="/")


def _fingerprint(codes: np.ndarray) -> str:
    return hashlib.sha256(repr(codes.shape).encode() + np.ascontiguousarray(codes, "<i4").tobytes()).hexdigest()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return array_files.read(path).arrays
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except DamagedFileError as error:
        raise InputError(
            f"{error}. Bring it back from a copy of the folder, or make codes in another folder (recjax tokenize)"
        ) from None

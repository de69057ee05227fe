"""Plain console of the commands."""

import jax
from rich.console import Console

from recjax.track.console import PLAIN_WIDTH


def plain_console(errors: bool = False) -> Console:
    """Standard output, or standard error, of the first process; the others say nothing. Text is printed as it is."""
    console = Console(stderr=errors, quiet=jax.process_index() != 0, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console

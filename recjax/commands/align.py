"""The command that trains a sentence encoder on what users have together."""

from argparse import Namespace

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.config import override_all
from recjax.train.alignment import align as align_encoder


def align(options: Namespace) -> int:
    """A recipe to a sentence encoder that has learned from users."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    metric, console = config.train.metric, plain_console()

    def tell(metrics: dict[str, float]) -> None:
        console.print(f"before training, {metric} {metrics[metric]:.4f} on the held-out catalog", highlight=False)

    aligned = align_encoder(
        config, options.run or recipes.default_run(recipe.name, options.settings), options.out, tell
    )
    if aligned.out is not None:
        console.print(f"encoder written to {aligned.out}", highlight=False, markup=False)
    return 0

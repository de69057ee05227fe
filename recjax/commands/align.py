"""The command that trains a sentence encoder on what users have together."""

from argparse import Namespace

import jax

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.config import override_all
from recjax.train.alignment import align as align_encoder
from recjax.train.encoder_task import write_encoder
from recjax.train.folder.run_folder import check_config


def align(options: Namespace) -> int:
    """A recipe to a sentence encoder that has learned from users."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    folder = options.run or recipes.default_run(recipe.name, options.settings)
    metric, console = config.train.metric, plain_console()

    def tell(metrics: dict[str, float]) -> None:
        console.print(f"before training, {metric} {metrics[metric]:.4f} on the held-out catalog", highlight=False)

    if options.no_train:
        check_config(folder, config, longer=True)
        with jax.set_mesh(config.mesh.build()):
            out = write_encoder(config, folder, options.out)
    else:
        out = align_encoder(config, folder, options.out, tell).out
    if out is None:
        console.print("no encoder is written yet: --no-train writes that of the best step so far", soft_wrap=True)
    else:
        console.print(f"encoder written to {out}", highlight=False, markup=False, soft_wrap=True)
    return 0

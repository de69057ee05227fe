"""The command that gives a recipe's catalogs item codes."""

from argparse import Namespace

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.config import override_all
from recjax.train.catalogs import CODES
from recjax.train.tokenization import tokenize_catalogs


def tokenize(options: Namespace) -> int:
    """A recipe's catalogs to item codes, and what they look like."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    console = plain_console()
    for catalog in tokenize_catalogs(config, options.run, options.data):
        dataset = catalog.dataset
        note = "" if catalog.fitted_on else "; the tokenizer is not fitted on it"
        console.print(f"{dataset.name}, fingerprint {dataset.fingerprint}{note}", highlight=False, markup=False)
        console.print(catalog.tokenized.table())
    if options.run is not None:
        console.print(f"kept in {options.run / CODES}", highlight=False, markup=False)
    return 0

"""recjax ablate function_classes --set data.dataset=permutations

Which mixer can pick up a rule that is a user's own from the history alone? A user is x1 y1 x2 y2 ... by a function
drawn for that user; hr@1 is the accuracy of the last y. `permutations` of 16 symbols have no rule, so there is lookup:
accuracy on "repeat" (a y that stands in the history) against chance on "novel". `window-1`, `window-2` and `window-3`
are linear functions modulo 17 of the last one, two or three x, whose rule says the y of a new x too; `random-labels` is
the control, of which nothing can be learned (chance: 0.059).

Expected:  not run to its end. hr@1 of rotary attention on permutations 0.0542 [0.0417, 0.0667] after 1,500 steps, one
           seed (repeat 0.0636, novel 0.0484): at chance, 0.0625; its loss has not left log 16. The other rows and
           tasks have not been run
Time:      11 minutes for that cell, on a core shared with much other work (101 s of CPU)
Hardware:  1 CPU core
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.data.batches.derived import Every
from recjax.data.batches.views import Shifted

LENGTH = 31
"""Events of the longest history before its last y."""


def config() -> RunConfig:
    like = recipes.read("memory").config
    return dataclasses.replace(
        like,
        name="function_classes",
        data=dataclasses.replace(like.data, dataset="permutations", view=Every(Shifted(max_length=LENGTH))),
        model=dataclasses.replace(like.model, max_length=LENGTH),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    """The mixers, and one that weighs places without looking at what stands there."""
    return recipes.read("memory").module.sweep() | {"uniform": {"model.mixer": "static_mixing"}}

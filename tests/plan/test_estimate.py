import pytest

from recjax.plan.estimate import _exhausted


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (40.00G) "
            "exceeds available HBM (15.75G).",
            40 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 20.50G of 15.75G hbm. Exceeded", 20.5 * 2**30),
        ("RESOURCE_EXHAUSTED: no room on the host", None),
        ("INTERNAL: Used 20.50G of 15.75G hbm", None),
    ],
)
def test_a_program_that_does_not_fit_says_what_it_needs(message, needed):
    assert _exhausted(message) == needed

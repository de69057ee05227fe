"""The command that counts evidence by Beam."""

from argparse import Namespace

from recjax.data.store.remote import place
from recjax.typing import InputError


def count(options: Namespace) -> int:
    """A prepared dataset to the relations of `pretrained`, in the cache."""
    try:
        from recjax.data.prepare.pipeline import Runner
        from recjax.train.beam_evidence import count_by_beam
    except ImportError as error:
        raise InputError(
            f"counting by Beam needs Apache Beam ({error}): pip install 'recjax[beam]', or pip install -r "
            "requirements-beam.txt in an environment of its own; without it `pretrained` counts here by itself"
        ) from error
    items, events = count_by_beam(
        options.dataset,
        Runner(options.beam, options.beam_options),
        all_events=not options.training,
        work=None if options.work is None else place(options.work),
        encoder=options.encoder,
    )
    command = "evaluate" if options.training else "recommend"
    named = "pretrained" if options.encoder is None else f"pretrained:{options.encoder}"
    print(
        f"counted {events:,} events into the links of {items:,} items; now: recjax {command} {named} --data "
        f"{options.dataset}"
    )
    return 0

"""Bounds on what a request may ask for, and on what the server holds."""

from dataclasses import dataclass

from recjax.limits import COUNT, SIZE, require


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        k: length of the longest list.
        events: events of a request, in a history or of a user.
        ids: ids of `candidates`, and of `exclude`.
        body: bytes of a request.
        users: users whose events are remembered.
        waiting: requests that wait for the device; more are refused.
    """

    k: int = 100
    events: int = 1_000
    ids: int = 50_000
    body: int = 1 << 20
    users: int = 10_000
    waiting: int = 1_000

    def __post_init__(self) -> None:
        require(self, k=SIZE, events=COUNT, ids=COUNT, body=COUNT, users=SIZE, waiting=SIZE)

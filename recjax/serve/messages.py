"""Requests and answers as JSON: the schemas of the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, create_model

from recjax.serve.limits import Limits

Id = Annotated[StrictStr | StrictInt, Field(description="raw id; a number is taken for its digits")]
Seconds = Annotated[StrictInt, Field(ge=0, le=2**31 - 1, description="unix seconds")]


class _Closed(BaseModel):
    """Base of requests: an unknown key is an error, for it is a slip."""

    model_config = ConfigDict(extra="forbid")


class Event(_Closed):
    """One event of a user."""

    item_id: Id
    timestamp: Seconds | None = None


class Wish(_Closed):
    """Length and contents of a list."""

    k: StrictInt = Field(10, ge=1, description="items of the list; it is shorter where the catalog runs out")
    candidates: list[Id] | None = Field(None, description="the only items that may be listed, e.g. those in stock")
    exclude: list[Id] = Field([], description="items that may not be listed")
    unknown: Literal["refuse", "skip"] = Field(
        "refuse", description="ids that the catalog does not have are an error, or are left out and named"
    )


class Ask(Wish):
    """A history to recommend for."""

    history: list[Id] = Field(min_length=1, description="items, oldest first")
    timestamps: list[Seconds] | None = Field(None, description="of the history's items, for models that read times")


class Events(_Closed):
    """Events of one user that follow those sent before, oldest first."""

    events: list[Event] = Field(min_length=1)
    unknown: Literal["refuse", "skip"] = "refuse"


def bounded(limits: Limits) -> tuple[type[Wish], type[Ask], type[Events]]:
    """The requests with a server's limits in their schemas."""
    ids: dict[str, Any] = {
        "k": (StrictInt, Field(min(10, limits.k), ge=1, le=limits.k, description=Wish.model_fields["k"].description)),
        "candidates": (list[Id] | None, _with(Wish, "candidates", None, limits.ids)),
        "exclude": (list[Id], _with(Wish, "exclude", [], limits.ids)),
    }
    history = Field(min_length=1, max_length=limits.events, description=Ask.model_fields["history"].description)
    times = _with(Ask, "timestamps", None, limits.events)
    return (
        create_model("Wish", __base__=Wish, **ids),
        create_model("Ask", __base__=Ask, **ids, history=(list[Id], history), timestamps=(list[Seconds] | None, times)),
        create_model("Events", __base__=Events, events=(list[Event], Field(min_length=1, max_length=limits.events))),
    )


def _with(model: type[BaseModel], name: str, default: Any, most: int) -> Any:
    return Field(default, max_length=most, description=model.model_fields[name].description)


class Recommendation(BaseModel):
    rank: int
    item_id: str
    title: str
    score: float | None = Field(description="of the model, higher is better; null in a list of popular items")


class Recommendations(BaseModel):
    items: list[Recommendation]
    unknown: list[str] = Field(description="ids that were left out, because the catalog does not have them")
    fallback: bool = Field(description="nothing of the history is known, and these are the most popular items")


class Taken(BaseModel):
    events: int = Field(description="events of the user so far")
    skipped: int = Field(description="events of the request that are not after those sent before")
    unknown: list[str]


class Item(BaseModel):
    item_id: str
    title: str


class Found(BaseModel):
    items: list[Item]


class About(BaseModel):
    run: str
    step: int
    dataset: str
    fingerprint: str
    items: int
    online: Literal["state", "history"] = Field(
        description="users' events advance a state of one size, or are stored and read again"
    )
    counts_events: bool = Field(description="whether events that are sent count for the lists of everybody")
    limits: dict[str, int]


class Health(BaseModel):
    status: Literal["ready", "stopping"]


class Nearest(BaseModel):
    id: str
    nearest: list[str]


class Fault(BaseModel):
    code: str
    message: str
    unknown: list[Nearest] | None = Field(None, description="the first ids that the catalog does not have")


class Failure(BaseModel):
    error: Fault

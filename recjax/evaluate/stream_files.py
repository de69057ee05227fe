"""States of users in a file, read by the next call, and written together with the lists of this one.

A state is a safetensors file with a digest (see `recjax.array_files`). It belongs to the parameters that made it. State
and lists become visible together or neither (`recjax.files.replacing_together`); a call that is killed between the two
is finished by the next one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from recjax import array_files
from recjax.array_files import content_digest
from recjax.evaluate import lists
from recjax.evaluate.stream import Stream
from recjax.files import exclusive, finish_replacing, replacing_together
from recjax.typing import InputError, Params

FORMAT = "recjax user states 2"


def identity(params: Params, configuration: Any, **more: Any) -> dict[str, Any]:
    """JSON values that tell the states of one model from those of another.

    Args:
        params: whose values count, so that states of another seed or step are told apart.
        configuration: JSON values; settings of the model.
        more: JSON values that an error shows, such as the name of the run and its step.
    """
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(jax.device_get(params))
    }
    settings = content_digest({}, {"configuration": json.dumps(configuration, sort_keys=True)})
    return {**more, "configuration": settings[:16], "parameters": content_digest(arrays)[:32]}


class StateFile:
    """The file of a stream's states, from the beginning of a call to its end; one call at a time.

    Args:
        path: of the file; made by the first `write`.
        identity: of the model, see `identity`.

    Attributes:
        repaired: files that an earlier call, which was killed, had written but not put in their places.

    Raises:
        InputError: on entry, where another process has the file, or nothing can be written there.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self.path, self._identity = path, dict(identity)
        self._place = Path(os.path.realpath(path))  # one journal and one lock for all links to a file
        self._journal = self._place.with_name(f".{self._place.name}.journal")
        self.repaired: list[Path] = []

    @contextmanager
    def held(self) -> Iterator["StateFile"]:
        """The file locked, and what an earlier call left half done finished."""
        lists.check_writable(self.path)
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(exclusive(self._place))
                self.repaired = finish_replacing(self._journal)
            except OSError as error:
                raise lists.unwritable(self.path, error) from error
            yield self

    def restore(self, stream: Stream) -> None:
        """Reads the states into a new stream; nothing where there is no file yet.

        Raises:
            InputError: the file is damaged, holds no states, or those of other parameters.
        """
        try:
            found = array_files.read(self.path)
        except FileNotFoundError:
            return
        held = _parsed(found.metadata.get("identity", ""))
        if found.metadata.get("format") != FORMAT or not found.checked or held is None:
            old = "of an earlier version of recjax, which do not say whose parameters they belong to"
            what = f"states {old}" if "identity" in found.metadata else "no states of users"
            raise InputError(f"{self.path} holds {what}; start a new file from the users' whole histories")
        differing = [key for key in {**self._identity, **held} if held.get(key) != self._identity.get(key)]
        if differing:
            shown = ", ".join(f"{key} {held.get(key)!r} there, {self._identity.get(key)!r} here" for key in differing)
            raise InputError(
                f"{self.path} holds states of other parameters: {shown}; start a new file from the users' whole "
                "histories"
            )
        stream.restore(found.arrays)

    def write(self, stream: Stream, table: pl.DataFrame, out: Path | None) -> None:
        """Writes the states, and lists too where `out` is given: both or neither.

        Raises:
            InputError: one of them cannot be written; names it.
        """
        content = None if out is None else lists.encoded(table, out)
        metadata = {"format": FORMAT, "identity": json.dumps(self._identity)}
        paths = [self.path] if out is None else [out, self.path]
        try:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_together(self._journal, *paths) as temporaries:
                if content is not None:
                    temporaries[0].write_bytes(content)
                array_files.write(temporaries[-1], stream.arrays(), metadata)
        except OSError as error:
            again = " The same command finishes it" if self._journal.exists() else " Nothing has changed"
            written = " and ".join(map(str, paths))
            raise InputError(f"cannot write {written}: {error.strerror or error}.{again}") from error


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

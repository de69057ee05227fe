"""Histories on disk: ArrayRecord shards written by a TFDS builder, one record a user, read back without TensorFlow."""

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recjax.typing import InputError

SPLIT = "users"
_COLUMNS = {"items": np.dtype("<i4"), "timestamps": np.dtype("<i8"), "values": np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class Records:
    """Histories as columns; see `recjax.data.dataset.Dataset` for the meaning of each."""

    user_ids: list[str]
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray | None

    def columns(self) -> dict[str, np.ndarray]:
        columns = {"items": self.items, "timestamps": self.timestamps}
        return columns if self.values is None else columns | {"values": self.values}


def _builder(records: Records, folder: Path) -> Any:
    """A TFDS builder of `records`. TFDS is imported late: it costs a second, and most commands need it not."""
    import tensorflow_datasets as tfds

    columns = records.columns()

    class Histories(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Item histories, one record a user."""

        VERSION = tfds.core.Version("1.0.0")
        name = "recjax"

        def _info(self) -> Any:
            # Bytes, because a protobuf list of numbers is an order of magnitude slower to decode than one buffer.
            encoding = tfds.features.Encoding.BYTES
            features = {"user_id": tfds.features.Text()} | {
                name: tfds.features.Tensor(shape=(None,), dtype=_COLUMNS[name].type, encoding=encoding)
                for name in columns
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description="Item histories, oldest event first, one record a user.",
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {SPLIT: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            bounds = records.offsets.tolist()
            for user, user_id in enumerate(records.user_ids):
                events = slice(bounds[user], bounds[user + 1])
                yield user, {"user_id": user_id} | {name: column[events] for name, column in columns.items()}

    return Histories(data_dir=str(folder), file_format="array_record")


def write(records: Records, folder: Path) -> None:
    """Writes the shards and TFDS's own description of them into the existing, empty `folder`."""
    import tensorflow_datasets as tfds

    scratch = folder / "tfds"
    builder = _builder(records, scratch)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints about downloads, of which there are none
        builder.download_and_prepare()
    for file in Path(builder.data_dir).iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(scratch)


def read(folder: Path) -> Records:
    """Reads what `write` wrote.

    Raises:
        InputError: the shards are missing or damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.decode import DeserializeMethod
    from tensorflow_datasets.proto import tf_example_pb2

    example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 (generated: type checkers do not see it)
    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        # The raw records, because TFDS's own decoding works feature by feature and takes three times as long.
        source = builder.as_data_source(split=SPLIT, deserialize_method=DeserializeMethod.RAW_BYTES)
        names = [name for name in _COLUMNS if name in builder.info.features]
        user_ids: list[str] = []
        buffers: dict[str, list[bytes]] = {name: [] for name in names}
        step = 65_536
        for start in range(0, len(source), step):
            for record in source.__getitems__(range(start, min(start + step, len(source)))):
                feature = example.FromString(record).features.feature
                user_ids.append(feature["user_id"].bytes_list.value[0].decode())
                for name in names:
                    buffers[name].append(feature[name].bytes_list.value[0])
    except Exception as error:  # whatever TFDS, ArrayRecord or protobuf raise on missing or damaged files
        reason = str(error).strip().splitlines()[:1]
        raise InputError(f"cannot read the prepared dataset in {folder}: {type(error).__name__} {reason}") from error
    sizes = [len(buffer) // _COLUMNS["items"].itemsize for buffer in buffers["items"]]
    columns = {name: np.frombuffer(b"".join(buffers[name]), _COLUMNS[name]) for name in names}
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return Records(user_ids, offsets, columns["items"], columns["timestamps"], columns.get("values"))

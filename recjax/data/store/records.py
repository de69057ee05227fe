"""Histories on disk: ArrayRecord shards in the form of a TFDS dataset, one record a user, read without TensorFlow.

The bytes of a shard depend on its content alone: TFDS's own serialisation leaves the order of a record's fields to the
process, so that two writings of one dataset differ. Here fields are sorted, and many machines can write one dataset.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from recjax.data.store.remote import Place, written
from recjax.typing import InputError

SPLIT = "users"
OFFSETS = "offsets.i64"
"""Offsets of the histories, little-endian int64 [users + 1]: known without reading a record."""

_NAME = "recjax"
_COLUMNS = {"items": np.dtype("<i4"), "timestamps": np.dtype("<i8"), "values": np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class Records:
    """Histories as columns; see `recjax.data.dataset.Dataset` for the meaning of each."""

    user_ids: list[str]
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray | None

    def serialized(self) -> Iterator[bytes]:
        """The record of each user."""
        bounds = self.offsets.tolist()
        for user, user_id in enumerate(self.user_ids):
            events = slice(bounds[user], bounds[user + 1])
            values = None if self.values is None else self.values[events]
            yield serialize(user_id, self.items[events], self.timestamps[events], values)


def serialize(user_id: str, items: np.ndarray, timestamps: np.ndarray, values: np.ndarray | None) -> bytes:
    """The record of a user: a `tf.train.Example` of byte strings, columns as little-endian buffers.

    Bytes, because a protobuf list of numbers is an order of magnitude slower to decode than one buffer.
    """
    example = _example()()
    feature = example.features.feature
    feature["user_id"].bytes_list.value.append(user_id.encode())
    for name, column in (("items", items), ("timestamps", timestamps), ("values", values)):
        if column is not None:
            feature[name].bytes_list.value.append(column.astype(_COLUMNS[name]).tobytes())
    return example.SerializeToString(deterministic=True)


def _example() -> Any:
    """The protobuf class. TFDS is imported late: it costs a second, and most commands need it not."""
    from tensorflow_datasets.proto import tf_example_pb2

    return getattr(tf_example_pb2, "Example")  # noqa: B009 (generated: type checkers do not see it)


def write(records: Records, folder: Place) -> None:
    """Writes the shards and TFDS's description of them into the existing, empty `folder`; no shards without users."""
    (folder / OFFSETS).write_bytes(records.offsets.astype("<i8").tobytes())
    if not records.user_ids:
        return
    size = sum(map(len, records.serialized()))
    bounds = shard_bounds(len(records.user_ids), size)
    serialized, start = records.serialized(), 0
    for shard, stop in enumerate(bounds):
        write_shard(folder / shard_name(shard, len(bounds)), islice(serialized, stop - start))
        start = stop
    write_info(folder, bounds, size, rated=records.values is not None)


def shard_bounds(users: int, size: int) -> list[int]:
    """End of each shard, in users, by TFDS's rule: 64 MiB to 1 GiB a shard.

    Args:
        users: records in all.
        size: their bytes in all.
    """
    from tensorflow_datasets.core.utils import shard_utils

    shards = shard_utils.ShardConfig().get_number_shards(size, users)
    return [int(bound) for bound in shard_utils.get_shard_boundaries(users, shards)]


def shard_name(shard: int, shards: int) -> str:
    """A shard's file name."""
    return f"{_NAME}-{SPLIT}.array_record-{shard:05d}-of-{shards:05d}"


def write_shard(file: Place, records: Iterable[bytes]) -> None:
    """Writes the records of one shard, by TFDS's adapter for the format."""
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    with written(file) as path:
        ArrayRecordFileAdapter.write_examples(path, enumerate(records))


def write_info(folder: Place, bounds: Sequence[int], size: int, rated: bool) -> None:
    """Writes TFDS's description of the shards of `folder`: `dataset_info.json` and `features.json`.

    Args:
        folder: of the shards.
        bounds: see `shard_bounds`.
        size: bytes of all records.
        rated: whether records have `values`.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity, DatasetInfo
    from tensorflow_datasets.core.file_adapters import FileFormat
    from tensorflow_datasets.core.splits import SplitDict

    bytes_ = tfds.features.Encoding.BYTES
    features = {"user_id": tfds.features.Text()} | {
        name: tfds.features.Tensor(shape=(None,), dtype=dtype.type, encoding=bytes_)
        for name, dtype in _COLUMNS.items()
        if rated or name != "values"
    }
    info = DatasetInfo(
        builder=DatasetIdentity(
            name=_NAME, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
        ),
        description="Item histories, oldest event first, one record a user.",
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )
    info.set_file_format(FileFormat.ARRAY_RECORD)
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=_NAME, split=SPLIT, filetype_suffix="array_record"
    )
    lengths = np.diff(bounds, prepend=0).tolist()
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
    info.set_splits(SplitDict([split]))
    info.write_to_directory(folder)


def read(folder: Path, share: float = 1.0) -> Records:
    """Reads what `write` wrote.

    Args:
        folder: with the shards.
        share: of the users, the first ones.

    Raises:
        InputError: the shards are missing or damaged.
    """
    file = folder / OFFSETS
    if file.is_file() and file.stat().st_size == 8:  # a catalog alone has no shards
        nothing = {name: np.zeros(0, kind) for name, kind in _COLUMNS.items()}
        return Records([], np.zeros(1, np.int64), nothing["items"], nothing["timestamps"], None)
    source = open_source(folder)
    return take(folder, source, range(max(1, round(share * len(source)))))


def open_source(folder: Path) -> Any:
    """The records of a folder by number, through TFDS's `as_data_source`; none is read.

    Raises:
        InputError: the shards are missing or damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.decode import DeserializeMethod

    with _damage_named(folder):
        builder: Any = tfds.builder_from_directory(str(folder))
        # The raw records, because TFDS's own decoding works feature by feature and takes three times as long.
        return builder.as_data_source(split=SPLIT, deserialize_method=DeserializeMethod.RAW_BYTES)


def take(folder: Path, source: Any, users: Sequence[int] | np.ndarray) -> Records:
    """The records of some users.

    Args:
        folder: for messages.
        source: see `open_source`.
        users: their numbers; no other record is read.

    Raises:
        InputError: a shard is damaged.
    """
    example, step = _example(), 65_536
    user_ids: list[str] = []
    buffers: dict[str, list[bytes]] = {name: [] for name in _COLUMNS}
    with _damage_named(folder):
        for start in range(0, len(users), step):
            for record in source.__getitems__([int(user) for user in users[start : start + step]]):
                feature = example.FromString(record).features.feature
                user_ids.append(feature["user_id"].bytes_list.value[0].decode())
                for name, buffer in buffers.items():
                    if name in feature:
                        buffer.append(feature[name].bytes_list.value[0])
    sizes = [len(buffer) // _COLUMNS["items"].itemsize for buffer in buffers["items"]]
    columns = {name: np.frombuffer(b"".join(buffers[name]), _COLUMNS[name]) for name in buffers if buffers[name]}
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return Records(user_ids, offsets, columns["items"], columns["timestamps"], columns.get("values"))


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever TFDS, ArrayRecord or protobuf raise on missing or damaged files
        reason = str(error).strip().splitlines()[:1]
        raise InputError(f"cannot read the prepared dataset in {folder}: {type(error).__name__} {reason}") from error

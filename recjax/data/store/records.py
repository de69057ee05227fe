"""Histories on disk: ArrayRecord shards in the form of a TFDS dataset, one record a user, read without TensorFlow.

The bytes of a shard depend on its content alone: TFDS's own serialisation leaves the order of a record's fields to the
process, so that two writings of one dataset differ. Here fields are sorted, and many machines can write one dataset.
Reading takes the ArrayRecord reader that is under TFDS's, which is there 0.15 s earlier.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
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
_EXAMPLE = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "FeatureEntry" }
  nested_type {
    name: "FeatureEntry"
    options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Feature" }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Features" }
}
"""
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


@cache
def _example() -> Any:
    """The protobuf class `tf.train.Example` with byte strings alone; to have TFDS's, all of TFDS would be imported."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    file = text_format.Parse(_EXAMPLE, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


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
    """The records of a folder by number; none is read.

    Raises:
        InputError: the shards are missing or damaged.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    shards = sorted(file.name for file in folder.glob(f"{_NAME}-{SPLIT}.array_record-*"))
    if not shards or shards != [shard_name(number, len(shards)) for number in range(len(shards))]:
        raise InputError(f"cannot read the prepared dataset in {folder}: shards are missing, there are {shards}")
    with _damage_named(folder):
        return ArrayRecordDataSource([str(folder / shard) for shard in shards])


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

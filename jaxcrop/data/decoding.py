"""Records to arrays without copying them.

A record is a serialised `tf.train.Example`: a map from names to lists of bytes, here one of raw
bytes for an array and one or several for texts. Reading its wire format ourselves makes views of
the record, where protobuf and TFDS copy each image three times.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class Decoder:
    """Turns records into what TFDS decodes them to, by the features of their dataset.

    `arrays` holds dtype and shape (None is free) of each array; `lists` the names of lists of text.
    """

    arrays: Mapping[str, tuple[np.dtype, tuple[int | None, ...]]]
    lists: frozenset[str]

    @classmethod
    def of(cls, features: tfds.features.FeaturesDict) -> "Decoder":
        """The decoder for these features."""
        tensors = {
            name: (np.dtype(feature.np_dtype), feature.shape)
            for name, feature in features.items()
            if type(feature) is tfds.features.Tensor
        }
        lists = (name for name, f in features.items() if isinstance(f, tfds.features.Sequence))
        return cls(tensors, frozenset(lists))

    def __call__(self, record: bytes | UInt8[np.ndarray, " n"]) -> dict:
        """Arrays (views of the record), texts as bytes and lists of texts, by name."""
        decoded = {name: [] for name in self.lists}
        (features,) = _fields(memoryview(record), 1)
        for entry in _fields(features, 1):
            (name,), (feature,) = _fields(entry, 1), _fields(entry, 2)
            name = str(name, "ascii")
            (byte_list,) = list(_fields(feature, 1)) or [memoryview(b"")]
            values = _fields(byte_list, 1)
            if name in self.arrays:
                decoded[name] = self._array(name, next(values))
            elif name in self.lists:
                decoded[name] = [bytes(value) for value in values]
            else:
                decoded[name] = bytes(next(values))
        return decoded

    def _array(self, name: str, raw: memoryview) -> np.ndarray:
        dtype, shape = self.arrays[name]
        if None not in shape and len(raw) != np.prod(shape) * dtype.itemsize:
            raw = zlib.decompress(raw)
        return np.frombuffer(raw, dtype).reshape([-1 if size is None else size for size in shape])


def _fields(message: memoryview, number: int) -> Iterator[memoryview]:
    """The contents of each length-delimited field `number` of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"a record of ours holds no field of wire type {tag & 7}")
        length, at = _varint(message, at)
        if tag >> 3 == number:
            yield message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The variable-length integer at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

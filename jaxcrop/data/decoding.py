"""Records to arrays without copying them.

A record is a serialised `tf.train.Example`: a map from names to lists of bytes, here one of raw
bytes for an array and one or several for texts. Reading its wire format ourselves makes views of
the record, where protobuf and TFDS copy each image three times.
"""

import math
import zlib
from collections.abc import Mapping
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
        record = memoryview(record)
        decoded = {name: [] for name in self.lists}
        ((_, features),) = _fields(record, 0, len(record))
        for _, span in _fields(record, *features):
            entry = dict(_fields(record, *span))
            name = str(record[slice(*entry[1])], "ascii")
            of_bytes = dict(_fields(record, *entry[2])).get(1, (0, 0))
            values = [record[start:end] for _, (start, end) in _fields(record, *of_bytes)]
            if name in self.arrays:
                decoded[name] = self._array(name, values[0])
            elif name in self.lists:
                decoded[name] = [bytes(value) for value in values]
            else:
                decoded[name] = bytes(values[0])
        return decoded

    def _array(self, name: str, raw: memoryview) -> np.ndarray:
        dtype, shape = self.arrays[name]
        if None not in shape and len(raw) != math.prod(shape) * dtype.itemsize:
            raw = zlib.decompress(raw)
        return np.frombuffer(raw, dtype).reshape([-1 if size is None else size for size in shape])


def _fields(record: memoryview, at: int, end: int) -> list[tuple[int, tuple[int, int]]]:
    """The fields of the message from `at` to `end`: each one's number, and where it lies itself.

    One plain loop: a record has a hundred of them, and other threads wait for Python meanwhile.
    """
    fields = []
    while at < end:
        tag, length, at = record[at], record[at + 1], at + 2
        if tag & 0x87 != _LENGTH_DELIMITED:  # of a number below 16
            raise ValueError(f"a record of ours holds no field of wire type {tag & 7}")
        if length & 0x80:  # the first seven bits of several bytes
            length, shift, more = length & 0x7F, 7, True
            while more:
                byte, at = record[at], at + 1
                length, shift, more = length | (byte & 0x7F) << shift, shift + 7, byte & 0x80
        fields.append((tag >> 3, (at, at + length)))
        at += length
    return fields

"""The epochs of a fold from TensorBoard's event files, for runs that kept them nowhere else.

An event file is TFRecord: records of an 8-byte length, its 4-byte checksum, an event as a
protocol buffer, and its 4-byte checksum. Checksums are not looked at: a record that is cut short
or makes no sense ends the file.
"""

import struct
from collections.abc import Iterator
from importlib.util import find_spec

from crane_ray import storage
from crane_ray.mil.history import Epoch

MARK = ".tfevents."


def read_events(folder: str) -> tuple[Epoch, ...]:
    """The epochs in a fold's event files; none where there are no files, or no reader of them.

    A value that a fold that was resumed wrote twice is the later one.
    """
    if not find_spec("tensorboardX"):
        return ()
    values: dict[int, dict[str, float]] = {}
    for path in storage.list_files(folder):  # their names begin with the time they were begun
        if MARK in storage.name_of(path):
            for epoch, name, value in _scalars(storage.read_bytes(path)):
                values.setdefault(epoch, {})[name] = value
    return tuple(_epoch(epoch, values[epoch]) for epoch in sorted(values))


def _epoch(epoch: int, values: dict[str, float]) -> Epoch:
    prefix = "val/auc_"
    aucs = {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    return Epoch(epoch, values.get("train/loss"), values.get("val/loss"), aucs)


def _scalars(data: bytes) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of every scalar."""
    from tensorboardX.proto.event_pb2 import Event

    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + size]
        at += 12 + size + 4
        if len(body) < size:
            return
        try:
            event = Event.FromString(body)
        except Exception:  # the package's own kind of error, which differs by version
            return
        for value in event.summary.value:
            yield int(event.step), str(value.tag), float(value.simple_value)

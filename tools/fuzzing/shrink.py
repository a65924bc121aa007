"""The smallest case that still shows a finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto

from fuzzing.case import Case

Shows = Callable[[Case], bool]


def shrunk(case: Case, shows: Shows, seconds: float) -> Case:
    """`case` without what it takes away for the finding to stay; ends after `seconds`."""
    end = time.monotonic() + seconds
    for simpler in _plainer(case):
        if time.monotonic() < end and shows(simpler):
            case = simpler
    shrinking = True
    while shrinking and time.monotonic() < end:
        shrinking = False
        for smaller in _smaller(case.model):
            if time.monotonic() > end:
                break
            candidate = replace(case, model=smaller)
            if shows(candidate):
                case, shrinking = candidate, True
                break
    return case


def _plainer(case: Case) -> Iterator[Case]:
    """The case tried in fewer ways."""
    yield replace(case, also=(), verified=False)
    yield replace(case, flags=())
    yield replace(case, feeds=None)


def _smaller(model: bytes) -> Iterator[bytes]:
    """Models without a part of this one, the largest parts first; of what is no protobuf, without some bytes."""
    try:
        proto = ModelProto.FromString(model)
    except DecodeError:
        yield from _shorter(model)
        return
    if len(proto.SerializeToString()) < len(model):
        yield proto.SerializeToString()
    for share in (2, 4, 8):
        count = len(proto.graph.node)
        for begin in range(0, count, max(1, count // share)) if count >= share else ():
            smaller = ModelProto()
            smaller.CopyFrom(proto)
            del smaller.graph.node[begin : begin + max(1, count // share)]
            yield smaller.SerializeToString()
    yield from _without_fields(proto, proto)


def _shorter(model: bytes) -> Iterator[bytes]:
    size = len(model) // 2
    while size:
        for begin in range(0, len(model), size):
            yield model[:begin] + model[begin + size :]
        size //= 2


def _without_fields(root: ModelProto, message: Message) -> Iterator[bytes]:
    """`root` with one field, or one element of a repeated field, cleared somewhere in `message`."""
    waiting = [message]
    for one in waiting:
        for field, value in one.ListFields():
            if field.is_repeated:
                for index in range(len(value) - 1, -1, -1) if len(value) <= 64 else ():
                    kept = list(value)
                    one.ClearField(field.name)
                    getattr(one, field.name).extend(kept[:index] + kept[index + 1 :])
                    yield root.SerializeToString()
                    one.ClearField(field.name)
                    getattr(one, field.name).extend(kept)
                if field.type == field.TYPE_MESSAGE:
                    waiting.extend(getattr(one, field.name))
            elif field.type == field.TYPE_MESSAGE:
                waiting.append(value)
            else:
                one.ClearField(field.name)
                yield root.SerializeToString()
                setattr(one, field.name, value)

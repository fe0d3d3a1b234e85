"""``ModelConfig`` of Triton's model_config.proto: the real one where tritonclient is installed, else what we use of it.

Fields and numbers are those of the schema that comes with Triton 2.73.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10,
    "TYPE_FP32": 11, "TYPE_STRING": 13,
}  # fmt: skip
KINDS = {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3}
# message -> field -> (number, kind), where a kind is one of protobuf's or a message's name; "*" is repeated
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ModelInput": {
        "name": (1, "string"), "data_type": (2, "DataType"), "dims": (4, "int64*"), "optional": (8, "bool"),
    },
    "ModelOutput": {"name": (1, "string"), "data_type": (2, "DataType"), "dims": (3, "int64*")},
    "ModelInstanceGroup": {"count": (2, "int32"), "kind": (4, "Kind")},
    "ModelDynamicBatching": {"max_queue_delay_microseconds": (2, "uint64")},
    "ModelTransactionPolicy": {"decoupled": (1, "bool")},
    "ModelParameter": {"string_value": (1, "string")},
    "ParametersEntry": {"key": (1, "string"), "value": (2, "ModelParameter")},
    "ModelConfig": {
        "name": (1, "string"), "platform": (2, "string"), "max_batch_size": (4, "int32"), "input": (5, "ModelInput*"),
        "output": (6, "ModelOutput*"), "instance_group": (7, "ModelInstanceGroup*"),
        "dynamic_batching": (11, "ModelDynamicBatching"), "parameters": (14, "ParametersEntry*"),
        "backend": (17, "string"), "model_transaction_policy": (19, "ModelTransactionPolicy"),
    },
}  # fmt: skip


def official() -> Any:
    """The generated module of tritonclient, without the rest of the package; None where it is not installed."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        return None
    path = f"{found.submodule_search_locations[0]}/grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def ours() -> Any:
    """Return the class of ``ModelConfig`` made from the tables above."""
    file = descriptor_pb2.FileDescriptorProto(name="ours.proto", package="ours", syntax="proto3")
    for enum, values in (("DataType", TYPES), ("Kind", KINDS)):
        made = file.enum_type.add(name=enum)
        for name, number in values.items():
            made.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ours.ModelConfig"))


def _add(message: Any, name: str, number: int, kind: str) -> None:
    plain = kind.removesuffix("*")
    label = Field.LABEL_REPEATED if kind != plain else Field.LABEL_OPTIONAL
    made = message.field.add(name=name, number=number, label=label)
    scalar = getattr(Field, f"TYPE_{plain.upper()}", None)
    if scalar is not None:
        made.type = scalar
        return
    made.type = Field.TYPE_ENUM if plain in ("DataType", "Kind") else Field.TYPE_MESSAGE
    made.type_name = f".ours.{plain}"

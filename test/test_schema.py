# SPDX-License-Identifier: Apache-2.0
"""The table of the .tflite schema that graph/schema.py ships equals the one LiteRT's own package holds.

`python test/test_schema.py` prints what graph/schema.py should hold, for the day when LiteRT's schema grows.
"""

import inspect
import re
import struct

import pytest

NAMES = [
    "Bool",
    "Int8",
    "Uint8",
    "Int16",
    "Uint16",
    "Int32",
    "Uint32",
    "Int64",
    "Uint64",
    "Float32",
    "Float64",
]
SCALARS = dict(zip(NAMES, "?bBhHiIqQfd", strict=True))
UNIONS = {
    "details": "QuantizationDetails",
    "array_segments": "SparseIndexVector",
    "array_indices": "SparseIndexVector",
    "builtin_options": "BuiltinOptions",
    "builtin_options2": "BuiltinOptions2",
}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _field_type(method: str, body: str) -> str:
    """The type of one field, read off the accessor that flatc wrote for it."""
    if "self._tab.Union(" in body:
        return "|" + UNIONS[_snake(method)]
    is_vector = "self._tab.Vector(" in body
    if child := re.search(r"obj = (\w+)\(\)", body):
        kind = "@" + child.group(1)
    elif "self._tab.String(" in body:
        kind = "s"
    else:
        kind = SCALARS[re.search(r"number_types\.(\w+)Flags, (?:o \+|a \+)", body).group(1)]
    return f"[{kind}]" if is_vector else kind


def _fields(source: str) -> list[str]:
    """The fields of a table as "name:type=default", at their slots; a slot without accessor is "-"."""
    found: dict[int, str] = {}
    for method, body in re.findall(r"    def (\w+)\(self(?:, j)?\):\n((?:        .*\n|\n)+)", source):
        offset = re.search(r"self\._tab\.Offset\((\d+)\)", body)
        if not offset or method.endswith(("Length", "IsNone", "AsNumpy")):
            continue
        kind = _field_type(method, body)
        default = re.findall(r"return (\S+)$", body, re.M)[-1]
        suffix = "" if default in ("0", "0.0", "None", "False") else f"={1 if default == 'True' else default}"
        found[(int(offset.group(1)) - 4) // 2] = f"{_snake(method)}:{kind}{suffix}"
    return [found.get(slot, "-") for slot in range(max(found, default=-1) + 1)]


def _members(union) -> dict[int, str]:
    return {value: member for member, value in vars(union).items() if isinstance(value, int) and value}


def derive():
    """(tables, unions, operators, tensor types) of LiteRT's schema, everything reachable from Model."""
    module = pytest.importorskip("ai_edge_litert.schema_py_generated")
    source = inspect.getsource(module)
    classes = dict(re.findall(r"^class (\w+)\(object\):\n((?:    .*\n|#.*\n|\n)+)", source, re.M))
    unions = {name: _members(getattr(module, name)) for name in sorted(set(UNIONS.values()))}
    tables: dict[str, list[str]] = {}
    todo = ["Model"]
    while todo:
        table = todo.pop()
        if table in tables:
            continue
        tables[table] = _fields(classes[table])
        for field in tables[table]:
            if match := re.search(r"@(\w+)", field):
                todo.append(match.group(1))
            elif match := re.search(r"\|(\w+)", field):
                todo.extend(unions[match.group(1)].values())
    operators = {v: k for k, v in vars(module.BuiltinOperator).items() if isinstance(v, int)}
    types = {v: k for k, v in vars(module.TensorType).items() if isinstance(v, int)}
    return tables, unions, operators, types


def test_schema_is_that_of_litert():
    from dnn_dist.graph import schema

    tables, unions, operators, types = derive()
    for name, fields in tables.items():
        ours = schema.TABLES.get(name)
        assert ours is not None, name
        texts = [f"{field.name}:{field.type}" if field else "-" for field in ours]
        assert texts == [re.sub("=.*", "", field) for field in fields], name
        for field, text in zip(ours, fields, strict=True):
            if field and "=" in text:
                assert float(field.default) == pytest.approx(float(text.split("=")[1])), (name, text)
    assert {k: dict(v) for k, v in schema.UNIONS.items()} == unions
    assert operators == schema.OPERATORS
    assert [t.lower() for _, t in sorted(types.items())] == list(schema.DTYPES)


def test_slots_of_scalars_fit_struct():
    assert all(struct.calcsize("<" + c) in (1, 2, 4, 8) for c in SCALARS.values())


if __name__ == "__main__":
    import textwrap

    tables, unions, operators, types = derive()
    print('_TABLES = """')
    for name in sorted(tables):
        line = f"{name}: {' '.join(tables[name])}"
        print("\n".join(textwrap.wrap(line, 108, subsequent_indent="    ")))
    print('"""')
    for name, members in unions.items():
        text = " ".join(members[i] for i in range(1, max(members) + 1))
        print(f'_{name.upper()} = """\n' + "\n".join(textwrap.wrap(text, 108)) + '\n"""')
    dense = " ".join(operators.get(i, "-") for i in range(max(operators) + 1))
    print('_OPERATORS = """\n' + "\n".join(textwrap.wrap(dense, 108)) + '\n"""')
    print(" ".join(types[i].lower() for i in sorted(types)))

"""Describes the public API as text: `python -m tests.public_api` writes it to tests/public_api.txt.

It contains names, parameters and members, without annotations and defaults: their text depends on the Python version,
and the type checkers verify them.
"""

import collections.abc
import dataclasses
import enum
import importlib
import inspect
import pathlib
import types
import typing


FILE: typing.Final = pathlib.Path(__file__).parent / "public_api.txt"
MODULES: typing.Final = (
    "modern_di_replicas",
    "modern_di_replicas.celery",
    "modern_di_replicas.errors",
    "modern_di_replicas.fastapi",
    "modern_di_replicas.faststream",
    "modern_di_replicas.httpx",
    "modern_di_replicas.litestar",
    "modern_di_replicas.observability",
    "modern_di_replicas.starlette",
    "modern_di_replicas.sync",
    "modern_di_replicas.taskiq",
    "modern_di_replicas.testing",
)


def describe() -> str:
    """Return the API of all public modules, a line for each name, parameter list or member."""
    return "".join(f"{line}\n" for module in MODULES for line in _module(importlib.import_module(module)))


def _module(module: types.ModuleType) -> collections.abc.Iterator[str]:
    yield module.__name__
    names = getattr(module, "__all__", None) or _own(module)
    for name in sorted(names):
        yield from _value(name, getattr(module, name), indent="  ")
    yield ""


def _own(module: types.ModuleType) -> list[str]:
    """Return the names defined by a module without `__all__`."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _value(name: str, value: typing.Any, *, indent: str) -> collections.abc.Iterator[str]:
    if isinstance(value, type):
        yield f"{indent}class {name}{_bases(value)}{_signature(value) if _is_made_by_us(value) else ''}"
        yield from _members(value, indent=f"{indent}  ")
    elif inspect.isfunction(value):
        yield f"{indent}{name}{_signature(value)}"
    else:
        yield f"{indent}{name}"


def _is_made_by_us(cls: type) -> bool:
    """Return whether a class's call is defined here, not by an enum, a protocol or SQLAlchemy."""
    if issubclass(cls, enum.Enum) or getattr(cls, "_is_protocol", False):
        return False
    return dataclasses.is_dataclass(cls) or getattr(cls.__init__, "__module__", "").startswith("modern_di_replicas")


def _bases(cls: type) -> str:
    ours = [base for base in cls.__mro__[1:] if base.__module__.startswith("modern_di_replicas")]
    bases = [base.__name__ for base in ours if not _is_role(base)]
    return f"[{', '.join(bases)}]" if bases else ""


def _is_role(cls: type) -> bool:
    """Return whether it is a base of the engines of both halves, whose members are listed there."""
    return cls.__name__.endswith(("Role", "_SyncEngine"))


def _members(cls: type, *, indent: str) -> collections.abc.Iterator[str]:
    if issubclass(cls, enum.Enum):
        yield from (f"{indent}{member.name} = {member.value!r}" for member in cls)
        return
    if dataclasses.is_dataclass(cls):
        yield from (f"{indent}.{field.name}" for field in dataclasses.fields(cls) if not field.name.startswith("_"))
    parts = [vars(part) for part in reversed(cls.__mro__) if _is_role(part)]
    for name, value in sorted({key: value for part in (*parts, vars(cls)) for key, value in part.items()}.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, classmethod | staticmethod | types.FunctionType):
            yield f"{indent}{name}{_signature(getattr(cls, name))}"
        elif isinstance(value, property):
            yield f"{indent}.{name}"


def _signature(value: typing.Any) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"
    bare = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=inspect.Parameter.empty if parameter.default is inspect.Parameter.empty else ...,
        )
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)).replace(
        "=Ellipsis", "=..."
    )


if __name__ == "__main__":
    FILE.write_text(describe())

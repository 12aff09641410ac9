"""Which connectors and helpdesks there are: the files of two folders, imported when first used.

A file's name is the registry's key, its class's `name`, and the folder of its samples. Being there
is being tested (tests/test_conformance.py).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Generic, TypeVar

from chalicelib.ports import Connector, Helpdesk

T = TypeVar("T", bound=Connector | Helpdesk)


class _Folder(Mapping[str, Callable[[], type[T]]], Generic[T]):
    """{module of a package: how to get the class in it that implements a port}."""

    def __init__(self, package: str, port: type[T]) -> None:
        self._package, self._port = package, port

    def __getitem__(self, name: str) -> Callable[[], type[T]]:
        module = f"{self._package}.{name}"
        # One file is looked for: listing them all would import `inspect` at a cold start.
        if name.startswith("_") or not name.isidentifier() or find_spec(module) is None:
            raise KeyError(name)
        return partial(self._load, module, name)

    def __iter__(self) -> Iterator[str]:
        from pkgutil import iter_modules

        yield from sorted(m.name for m in iter_modules(import_module(self._package).__path__))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, module: str, name: str) -> type[T]:
        for kind in vars(import_module(module)).values():
            if not isinstance(kind, type) or not issubclass(kind, self._port):
                continue
            if getattr(kind, "name", "") == name:
                return kind
        file = f"{module.replace('.', '/')}.py"
        raise TypeError(f'{file} has no {self._port.__name__} with name = "{name}"')


CONNECTORS = _Folder("connectors.channels", Connector)  # type: ignore[type-abstract]  # only asked for subclasses
HELPDESKS = _Folder("connectors.helpdesks", Helpdesk)  # type: ignore[type-abstract]  # likewise

"""What plays the providers on this machine, wherever it is declared.

A module of simulators/ or of providers/ declares, by connector, any of:

    WAYS       how a customer's words come in         (infra/local/ways.py)
    PROVIDERS  the API that takes what we send        (infra/local/providers/__init__.py)
    SIGNED     a webhook with a given body            (tests/sample.py)

One connector's module may declare all three.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

_PACKAGES = ("infra.local.simulators", "infra.local.providers")


@cache
def declared(what: str) -> Mapping[str, Any]:
    """{connector: what is declared for it} over all modules of both folders."""
    found: dict[str, Any] = {}
    for package in _PACKAGES:
        for module in iter_modules(import_module(package).__path__, f"{package}."):
            found |= getattr(import_module(module.name), what, {})
    return found

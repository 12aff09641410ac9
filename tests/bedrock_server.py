"""A Bedrock on loopback that speaks InvokeModel and Converse, and misbehaves when it is told to.

botocore is the client: what it sends has passed its own checks of the two APIs' shapes.
"""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from chalicelib import aws

REGION = "us-east-1"


@dataclass
class Asked:
    """One request as it arrived."""

    model: str
    operation: str
    body: Any


@dataclass
class Says:
    """What is answered once, in the place of what is right."""

    status: int = 200
    body: bytes = b"{}"
    error: str = ""
    #: Never answers, or ends before the body that it announced does.
    hangs: bool = False
    breaks_off: bool = False


@dataclass
class FakeBedrock:
    """What was asked, what is answered."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    #: Answered first, one each.
    says: list[Says] = field(default_factory=list)
    #: Answered whatever else is asked, while it is set; `only` in one of `invoke` and `converse`.
    always: Says | None = None
    only: str = ""
    #: {text: what it means}: texts that mean the same have nearly the same vector.
    meanings: dict[str, str] = field(default_factory=dict)
    dimension: int | None = None
    #: What a language model answers.
    opinion: Callable[[Any], Mapping[str, Any]] = lambda body: by_tool(same=True)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def texts(self) -> list[str]:
        """Everything that was to be embedded."""
        bodies = [a.body for a in self.asked if a.operation == "invoke"]
        return [t for b in bodies for t in b.get("texts", [b.get("inputText")])]

    def answer(self, asked: Asked) -> Says:
        self.asked.append(asked)
        if self.says:
            return self.says.pop(0)
        if self.always and self.only in ("", asked.operation):
            return self.always
        if asked.operation == "converse":
            return Says(body=json.dumps(self.opinion(asked.body)).encode())
        return Says(body=json.dumps(self._embedded(asked.body)).encode())

    def _embedded(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if "inputText" in body:
            vector = self.vector(body["inputText"], body["dimensions"])
            return {"embedding": vector, "inputTextTokenCount": 3}
        dimension = body.get("output_dimension", 1024)
        vectors = [self.vector(text, dimension) for text in body["texts"]]
        if "embedding_types" in body:
            return {"id": "1", "response_type": "embeddings_by_type",
                    "embeddings": {"float": vectors}}  # fmt: skip
        return {"id": "1", "response_type": "embeddings_floats", "embeddings": vectors}

    def vector(self, text: str, dimension: int) -> list[float]:
        dimension = self.dimension or dimension
        meant = _random(self.meanings.get(text, text), dimension)
        own = _random(text, dimension)
        return [a + 0.2 * b for a, b in zip(meant, own, strict=True)]


def _random(name: str, dimension: int) -> list[float]:
    numbers = random.Random(hashlib.sha256(name.encode()).digest())
    return [numbers.gauss(0, 1) for _ in range(dimension)]


def by_tool(**given: Any) -> Mapping[str, Any]:
    """An answer of Converse by our tool; `reason` is given unless it is named."""
    used = {"toolUseId": "t1", "name": "same_question", "input": {"reason": "Both ask it."} | given}
    return conversed([{"toolUse": used}], "tool_use")


def conversed(content: list[Any], stop: str = "end_turn") -> Mapping[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
        "metrics": {"latencyMs": 1},
    }


@contextmanager
def serving() -> Iterator[FakeBedrock]:
    """One on a free port of this machine, while the block lasts."""
    fake = FakeBedrock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            _, _, model, operation = unquote(self.path).split("/", 3)
            says = fake.answer(Asked(model, operation, json.loads(body)))
            if says.hangs:
                fake.released.wait()
                return
            self.send_response(says.status)
            self.send_header("Content-Type", "application/json")
            if says.error:
                self.send_header("x-amzn-ErrorType", says.error)
            self.send_header("Content-Length", str(len(says.body)))
            self.end_headers()
            self.wfile.write(says.body[: len(says.body) // 2] if says.breaks_off else says.body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield fake
        finally:
            fake.released.set()
            server.shutdown()
            thread.join()


@contextmanager
def instead_of_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBedrock]:
    """The same, where botocore's clients find it."""
    with serving() as fake:
        for name, value in {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": fake.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        aws.client.cache_clear()
        yield fake
        aws.client.cache_clear()

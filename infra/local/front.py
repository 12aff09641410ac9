"""HTTP on this machine for the Chalice app: true API Gateway events (REST API, version 1).

What API Gateway does is done here too: binary types arrive as base64, everything else as text;
repeated headers and parameters are all there; over 10 MB is refused; an unknown path is 403.
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import base64
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from chalice.app import Chalice
from chalice.local import LambdaContext, LocalChalice, RouteMatcher
from werkzeug.datastructures import Headers
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from infra.local.permissions import acting

MAX_BYTES = 10 * 1024 * 1024
#: Short, so that the claims of a killed world end soon.
LOCAL_TIMEOUT_MS = 4000


class QuietHandler(WSGIRequestHandler):
    """Without an access log, and with connections kept open."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's name
        pass


def start(app: Chalice, port: int) -> BaseWSGIServer:
    """Serve the app on a loopback port; 0 takes a free one. OSError when it is taken."""
    # Threads share the app object; this subclass keeps each one's request to itself.
    app.__class__ = LocalChalice
    server = make_server(
        "127.0.0.1", port, _Gateway(app), threaded=True, request_handler=QuietHandler
    )
    serve(server, "front")
    return server


def serve(server: BaseWSGIServer, name: str) -> None:
    """Serve in a thread, which ends soon after `shutdown`."""
    threading.Thread(target=server.serve_forever, args=(0.05,), name=name, daemon=True).start()


class _Gateway:
    """A WSGI application in the place of API Gateway."""

    def __init__(self, app: Chalice) -> None:
        self._app = app
        self._match = RouteMatcher(list(app.routes)).match_route

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = MAX_BYTES
        return self._answer(request)(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if (request.content_length or 0) > MAX_BYTES:
            return _json('{"message":"Request Too Long"}', 413)
        try:
            matched = self._match(request.path)
        except ValueError:
            return _json('{"message":"Missing Authentication Token"}', 403)
        event = self._event(request, matched.route, matched.captured)
        with acting("api_handler"):
            answer = self._app(event, LambdaContext("api_handler", 512, LOCAL_TIMEOUT_MS))
        headers = Headers(list((answer.get("headers") or {}).items()))
        for name, values in (answer.get("multiValueHeaders") or {}).items():
            headers.setlist(name, values)
        body = answer["body"]
        content = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
        return Response(content, answer["statusCode"], headers)

    def _event(self, request: Request, route: str, captured: dict[str, str]) -> dict[str, Any]:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name, []).append(value)
        query = {name: request.args.getlist(name) for name in request.args}
        body = request.get_data()
        binary = request.mimetype in self._app.api.binary_types
        text = base64.b64encode(body).decode() if binary else body.decode("utf-8", "replace")
        return {
            "resource": route,
            "path": request.path,
            "httpMethod": request.method,
            "headers": {name: values[-1] for name, values in headers.items()},
            "multiValueHeaders": headers,
            "queryStringParameters": {n: v[-1] for n, v in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": captured or None,
            "stageVariables": None,
            "body": text or None,
            "isBase64Encoded": binary,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "local",
                "httpMethod": request.method,
                "identity": {"sourceIp": request.remote_addr},
                "path": f"/api{request.path}",
                "protocol": "HTTP/1.1",
                "requestId": str(uuid.uuid4()),
                "requestTimeEpoch": int(time.time() * 1000),
                "resourcePath": route,
                "stage": "api",
            },
        }


def _json(body: str, status: int) -> Response:
    return Response(body, status, content_type="application/json")

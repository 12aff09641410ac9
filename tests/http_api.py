"""What an HTTP API hands to a function for a request, where its integration asks for format 1.0.

By AWS's description of the format, and where that is silent by what others saw of the service:
- Names of headers come in lower case, repeated headers and parameters whole, parameters decoded:
  https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
- A body is base64 "if its content type is binary". Which ones are text is not said; it was seen at
  https://github.com/ministackorg/ministack/pull/766: not even forms are.
- A route with parameters is named by its pattern, and they come decoded, as AWS's own test tool has
  it: https://github.com/aws/aws-lambda-dotnet, Tools/LambdaTestTool-v2.
"""

import base64
from collections.abc import Mapping
from typing import Any

from chalicelib.ports import WebhookRequest

TEXT_TYPES = ("application/json", "application/xml", "application/javascript")


def is_text(content_type: str) -> bool:
    """Whether the gateway hands a body of that type over as it is."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind in TEXT_TYPES


def event_of(request: WebhookRequest, route: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The event, format version 1.0, of a request to a route such as /webhooks/{inbox}."""
    headers = {name: list(values) for name, values in request.headers.items()}
    query: dict[str, list[str]] = {}
    for name, value in request.query:
        query.setdefault(name, []).append(value)
    text = is_text(next(iter(headers.get("content-type", ())), ""))
    body = request.body.decode("utf-8", "replace") if text else base64.b64encode(request.body)
    path = route.format(**parameters)
    return {
        "version": "1.0",
        "resource": route,
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {n: v[-1] for n, v in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": "abcdef1234.execute-api.us-east-1.amazonaws.com",
            "extendedRequestId": request.id,
            "httpMethod": request.method,
            "identity": {"sourceIp": request.source_ip},
            "path": path,
            "protocol": "HTTP/1.1",
            "requestId": request.id,
            "requestTimeEpoch": int(request.received_at.timestamp() * 1000),
            "resourceId": None,
            "resourcePath": route,
            "stage": "$default",
        },
        "pathParameters": dict(parameters) or None,
        "stageVariables": None,
        "body": (body if isinstance(body, str) else body.decode()) if request.body else None,
        "isBase64Encoded": bool(request.body) and not text,
    }

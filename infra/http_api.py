"""An HTTP API in the place of the REST API that Chalice makes: ASKONCE_API, at 1.00 instead of 3.50
dollars a million requests.

Chalice knows REST APIs only, but an HTTP API can hand its requests over in their format ("payload
format version 1.0"), so that the function is the same. What it is, infra/edge_http.yaml says; its
routes are those of Chalice's template, which has them from app.py.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import re
from collections.abc import Iterator
from typing import Any

_REST, _REST_OUTPUT = "RestAPI", "RestAPIId"


def in_place_of_rest(template: Any) -> Any:
    """The same edge, its REST API taken out, with a route of the HTTP API for each of its own."""
    resources, outputs = dict(template["Resources"]), dict(template["Outputs"])
    rest = resources.pop(_REST)
    del outputs[_REST_OUTPUT]
    routes = dict(_route(method, path) for method, path in _methods(rest))
    return template | {"Resources": resources | routes, "Outputs": outputs}


def _methods(rest: Any) -> Iterator[tuple[str, str]]:
    """Each method and path of a REST API."""
    for path, methods in rest["Properties"]["DefinitionBody"]["paths"].items():
        yield from ((method.upper(), path) for method in methods)


def _route(method: str, path: str) -> tuple[str, Any]:
    """A route's logical name, and the route."""
    words = re.findall(r"\w+", f"{method.lower()} {path}")
    return "Route" + "".join(word.capitalize() for word in words), {
        "Type": "AWS::ApiGatewayV2::Route",
        "Properties": {
            "ApiId": {"Ref": "HttpApi"},
            "RouteKey": f"{method} {path}",
            "Target": {"Fn::Sub": "integrations/${HttpApiIntegration}"},
        },
    }

"""Tokens signed with HS256: what PyJWT makes is read, PyJWT reads what is made; nothing else is."""

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.errors import SignatureError
from connectors import hs256

SECRET = "s" * 32
_VALUES = st.none() | st.booleans() | st.integers() | st.text()
CLAIMS = st.dictionaries(
    st.text(), _VALUES | st.lists(_VALUES) | st.dictionaries(st.text(), _VALUES)
)
UNCHECKED = {f"verify_{name}": False for name in ("exp", "iat", "nbf", "aud", "iss", "sub", "jti")}


@given(CLAIMS)
def test_pyjwt_reads_what_we_sign(claims: dict[str, Any]) -> None:
    token = hs256.signed(claims, SECRET)
    read = jwt.decode(token, SECRET, algorithms=["HS256"], options=UNCHECKED)  # type: ignore[arg-type]  # names by the dozen
    assert read == claims == hs256.claims(token, ["another", SECRET])


def token(header: dict[str, Any], payload: bytes = b"{}", secret: str = SECRET) -> str:
    """A token with a right signature, whatever is in it."""
    parts = (json.dumps(header).encode(), payload)
    text = ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)
    return f"{text}.{hs256._signature(text, secret)}"


@pytest.mark.parametrize(
    "forged",
    [
        jwt.encode({"sub": "v1"}, "another" * 8, algorithm="HS256"),
        jwt.encode({"sub": "v1"}, SECRET * 2, algorithm="HS512"),
        jwt.encode({"sub": "v1"}, "", algorithm="none"),
        token({"alg": "none"}),
        token({"alg": "HS512"}),
        token({}),
        token({"alg": "HS256", "crit": ["b64"], "b64": False}),
        token({"alg": "HS256"}, b"[]"),
        token({"alg": "HS256"}, b"\xff"),
        token({"alg": "HS256"}, b"[" * 100_000),
        hs256.signed({}, SECRET) + "=",
        hs256.signed({}, SECRET)[:-1],
        hs256.signed({}, SECRET).rpartition(".")[0] + ".",
        "",
        ".",
        "..",
        "é.ü.ñ",
        "\udcff.a.b",
    ],
)
def test_whatever_else_is_refused(forged: str) -> None:
    with pytest.raises(SignatureError):
        hs256.claims(forged, [SECRET])

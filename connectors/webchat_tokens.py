"""Web chat's tokens: ours for visitors, and the ones that your site signs for its customers.

Both are JWTs with HS256 (https://www.rfc-editor.org/rfc/rfc7519); no other algorithm is read.
A visitor's token names the inbox (`aud`), the page's origin (`org`), the visitor (`sub`), whose
one conversation it opens, and until when. What the site said of a customer who is logged in rides
in `known`; `was` is the anonymous visitor that this customer was a moment ago.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chalicelib.errors import SignatureError
from chalicelib.schema import digest
from connectors import hs256
from connectors.signing import Secret, Secrets, values

#: An anonymous visitor who comes back within this is the same one.
RENEWABLE_SECONDS = 90 * 24 * 3600
_KNOWN = ("sub", "email", "phone", "name")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Makes and reads the tokens of one inbox. SignatureError is all that reading raises."""

    inbox: str
    secret: Secrets
    identity_secret: Secret | None
    minutes: int

    def read(self, token: str, now: datetime, grace_seconds: int = 0) -> dict[str, Any]:
        """The claims of a token of ours that has not expired."""
        found = (verified(token, secret, self._audience) for secret in values(self.secret))
        claims = next((c for c in found if c is not None), None)
        if claims is None or not isinstance(claims.get("sub"), str):
            raise SignatureError("the token is not ours")
        if (
            not isinstance(claims.get("exp"), int)
            or now.timestamp() > claims["exp"] + grace_seconds
        ):
            raise SignatureError("the token has expired")
        return claims

    def issue(self, claims: Mapping[str, Any], origin: str, now: datetime) -> tuple[str, datetime]:
        """A token for what `visitor` says, and until when it is good."""
        issued = int(now.timestamp())
        until = issued + self.minutes * 60
        own = {"aud": self._audience, "org": origin, "iat": issued, "exp": until}
        return hs256.signed({**claims, **own}, values(self.secret)[0]), datetime.fromtimestamp(
            until, UTC
        )

    def visitor(
        self, identity: str | None, token: str | None, origin: str, now: datetime
    ) -> dict[str, Any]:
        """Who asks for a session: a customer, the visitor of an earlier token, or somebody new."""
        if identity:
            known = self._identity(identity, now)
            # Of the customer's id, so that the same customer has one chat on all devices.
            customer = {"sub": f"c{digest(self._audience, known['sub'])}", "known": known}
            was = self._just_now(token, origin, now) if token else None
            return customer | ({"was": was} if was else {})
        if token:
            before = self.read(token, now, grace_seconds=RENEWABLE_SECONDS)
            if before.get("org") != origin or "known" in before:
                raise SignatureError("the token cannot be renewed here")
            return {"sub": before["sub"]}
        return {"sub": f"v{secrets.token_hex(16)}"}

    def _just_now(self, token: str, origin: str, now: datetime) -> str | None:
        """The anonymous visitor of a token still good: not whoever used this browser last week."""
        try:
            before = self.read(token, now)
        except SignatureError:
            return None
        return None if before.get("org") != origin or "known" in before else str(before["sub"])

    def _identity(self, token: str, now: datetime) -> dict[str, str]:
        """What your site's server signed about its customer: sub, and email or phone if known."""
        if self.identity_secret is None:
            raise SignatureError("identities are not set up for this inbox")
        claims = verified(token, self.identity_secret.get_secret_value(), None)
        expires = claims.get("exp") if claims else None
        if not claims or not claims.get("sub") or not isinstance(expires, int):
            raise SignatureError("the identity is not signed by the site")
        if now.timestamp() > expires:
            raise SignatureError("the identity has expired")
        return {name: str(claims[name])[:256] for name in _KNOWN if claims.get(name)}

    @property
    def _audience(self) -> str:
        return f"askonce:{self.inbox}"


def verified(token: str, secret: str, audience: str | None) -> dict[str, Any] | None:
    """The claims of a token if signature and audience are right, else None; checks no times."""
    try:
        claims = hs256.claims(token, [secret])
    except SignatureError:
        return None
    if not isinstance(claims.get("sub", ""), str):
        return None
    meant_for = claims.get("aud")
    meant = audience in (meant_for if isinstance(meant_for, list) else [meant_for])
    return claims if audience is None or meant else None

"""Every error, arranged by what the caller does next.

A new leaf needs a new thing for the caller to do. "Already seen" is a return value, not an error.
No message ever holds a secret or a customer's words: messages are logged, and shown to agents.
"""

from typing import Any

__all__ = [
    "AskOnceError",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "DeliveryError",
    "GoneError",
    "NotFoundError",
    "PayloadError",
    "RejectedError",
    "RetryableError",
    "SignatureError",
    "TooLargeError",
    "TooManyError",
    "WebhookError",
]


class AskOnceError(Exception):
    """The root: whatever AskOnce raises on purpose."""


class ConfigurationError(AskOnceError):
    """Stop: the deployment is wrong. The message names the setting and the mend."""


class ConflictError(AskOnceError):
    """Read again and decide again: somebody else wrote first. `existing` is what they wrote."""

    def __init__(self, message: str, *, existing: Any = None) -> None:
        super().__init__(message)
        self.existing = existing


class WebhookError(AskOnceError):
    """An inbound request that we do not take."""


class NotFoundError(WebhookError):
    """Answer 404: no inbox, helpdesk, ticket or page of that name is served here."""


class TooLargeError(WebhookError):
    """Answer 413: the body is over the cap of its connector."""


class TooManyError(WebhookError):
    """Answer 429 with Retry-After: whoever asks may ask again after that many seconds."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SignatureError(WebhookError):
    """Answer 401 with an empty body, write nothing, log no content."""


class PayloadError(WebhookError):
    """Authentic but unreadable: answer 2xx, keep the bytes in quarantine, raise an alarm."""


class DeliveryError(AskOnceError):
    """An outbound call that did not succeed."""


class RetryableError(DeliveryError):
    """Try again, not before `retry_after_seconds`.

    `uncertain` says that the call may have taken effect although no answer came: whoever tries
    again must look first, or use an idempotency key. `of_one` says that it is about what was asked
    alone: others may ask the same other side at once.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        uncertain: bool = False,
        of_one: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.uncertain = uncertain
        self.of_one = of_one


class RejectedError(DeliveryError):
    """Never again as it is: tell the agent what the other side said."""


class GoneError(RejectedError):
    """The ticket takes nothing any more, or is gone: what was said needs another one."""


class ClosedError(RejectedError):
    """Not now, and not by the sender's doing: the channel's window is closed or used up."""

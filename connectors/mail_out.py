"""The ways out of mail that need no provider of their own: SMTP, and Amazon SES.

SMTP: https://www.rfc-editor.org/rfc/rfc5321
SES:  https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

import smtplib
import ssl
from contextlib import closing, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from chalicelib.errors import DeliveryError, RejectedError, RetryableError
from chalicelib.once import once

_TIMEOUT_SECONDS = 10


def submit(url: str, sender: str, recipient: str, mail: bytes) -> None:
    """Give a mail to a server. RetryableError, RejectedError.

    `url` is smtp://user:password@host:587 (STARTTLS) or smtps://...:465; `sender` may be empty.
    """
    try:
        with closing(_connection(url)) as connection:
            _introduce(connection, url)
            connection.sendmail(sender, [recipient], mail)
            with suppress(smtplib.SMTPException):  # the server has the mail, whatever it says
                connection.quit()
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        raise _by_code(code, "the mail server refused the recipient") from None
    except smtplib.SMTPResponseException as error:
        raise _by_code(error.smtp_code, "the mail server refused the mail") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise RetryableError(f"the mail server: {type(error).__name__}", uncertain=True) from None


def _connection(url: str) -> smtplib.SMTP:
    parts = urlsplit(url)
    options: dict[str, Any] = {"host": parts.hostname, "timeout": _TIMEOUT_SECONDS}
    if parts.scheme == "smtps":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(**options, port=parts.port or 465, context=context)
    return smtplib.SMTP(**options, port=parts.port or 587)


def _introduce(connection: smtplib.SMTP, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "smtp" and parts.hostname not in ("127.0.0.1", "localhost"):
        connection.starttls(context=ssl.create_default_context())
    if parts.username:
        connection.login(unquote(parts.username), unquote(parts.password or ""))


def _by_code(code: int, what: str) -> RejectedError | RetryableError:
    """Only 5xx never passes by itself: https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1"""
    if 500 <= code < 600:
        return RejectedError(f"{what} ({code})")
    return RetryableError(f"{what} for now ({code})")


#: What the account, not the mail, is refused for: it passes when somebody acts, or by itself.
_SES_LATER = {"TooManyRequestsException", "LimitExceededException", "SendingPausedException"}
_SES_LATER |= {"ThrottlingException", "Throttling"}
_SES_LOST = {"ReadTimeoutError", "ConnectionClosedError"}


def send_by_ses(
    region: str,
    recipient: str,
    mail: bytes,
    *,
    configuration_set: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Send; returns the Message-ID, which SES makes itself. RetryableError, RejectedError."""
    from botocore.exceptions import BotoCoreError, ClientError

    more = {"ConfigurationSetName": configuration_set} if configuration_set else {}
    try:
        answer = _ses(region, endpoint).send_email(
            Destination={"ToAddresses": [recipient]}, Content={"Raw": {"Data": mail}}, **more
        )
    except ClientError as error:
        raise _ses_error(error.response) from None
    except BotoCoreError as error:
        name = type(error).__name__
        raise RetryableError(f"SES: {name}", uncertain=name in _SES_LOST) from None
    return ses_message_id(str(answer["MessageId"]), region)


@once
def _ses(region: str, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=3, read_timeout=_TIMEOUT_SECONDS, retries={"max_attempts": 0})
    return boto3.client("sesv2", region_name=region, endpoint_url=endpoint, config=patience)


def ses_endpoint(region: str) -> str:
    """Where SES is called: https://docs.aws.amazon.com/general/latest/gr/ses.html"""
    return f"https://email.{region}.amazonaws.com"


def ses_message_id(own_id: str, region: str) -> str:
    """The Message-ID header that SES puts in place of ours."""
    host = "email" if region == "us-east-1" else region
    return f"<{own_id}@{host}.amazonses.com>"


def made_by_ses(message_id: str) -> bool:
    """Whether SES may have put this Message-ID in place of ours."""
    return message_id.endswith(".amazonses.com>")


def _ses_error(response: Any) -> DeliveryError:
    code = str(response.get("Error", {}).get("Code", ""))[:60]
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _SES_LATER or status == 429 or status >= 500:
        return RetryableError(f"SES: {code}", uncertain=status in (502, 504))
    return RejectedError(f"SES refused the mail: {code}")

"""The deployment that a command works on: named by its prefix, reached with your own credentials.

What AWS says when that does not work becomes one line for whoever typed the command.
"""

import os
from typing import Any

from chalicelib.errors import ConfigurationError

PREFIX_ENVIRONMENT = "ASKONCE_PREFIX"


def named(prefix: str | None = None) -> str:
    """The prefix of the deployment that is meant. ConfigurationError where none is."""
    name = prefix or os.environ.get(PREFIX_ENVIRONMENT)
    if not name:
        raise ConfigurationError(
            f"no deployment is named: give --prefix, or set {PREFIX_ENVIRONMENT}, "
            "beside your AWS credentials"
        )
    return name


def attach(prefix: str | None = None) -> str:
    """Let this process see what the deployment's functions see; returns its prefix.

    ConfigurationError where none is named.
    """
    name = named(prefix)
    if os.environ.get(PREFIX_ENVIRONMENT) != name:
        os.environ.pop("ASKONCE_BUCKET", None)
    os.environ[PREFIX_ENVIRONMENT] = name
    if "ASKONCE_BUCKET" not in os.environ:
        os.environ["ASKONCE_BUCKET"] = bucket_of(name)
    return name


def bucket_of(prefix: str) -> str:
    """As infra/resources.yaml names it: after the account, too."""
    from chalicelib.aws import client

    return f"{prefix}-bytes-{client('sts').get_caller_identity()['Account']}"


#: What AWS answers -> what is wrong, and the mend. {operation} is what was asked.
_DENIED = (
    "AWS does not let you do {operation}: your credentials' policy lacks it "
    "(docs/operating.md, What an operator may do)"
)
_UNKNOWN = "AWS does not know your credentials, or they ran out: log in again, or set AWS_PROFILE"
_ABSENT = (
    "AWS has nothing of the deployment {prefix} here ({operation}): "
    "is the prefix right, and the region (AWS_DEFAULT_REGION), and the account?"
)
_WORDS = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AuthorizationError": _DENIED,
    "KMSAccessDeniedException": _DENIED,
    "ExpiredToken": _UNKNOWN,
    "ExpiredTokenException": _UNKNOWN,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidClientTokenId": _UNKNOWN,
    "SignatureDoesNotMatch": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "AWS.SimpleQueueService.NonExistentQueue": _ABSENT,
    "404": _ABSENT,  # of S3, whose head has no body to say more
    "403": _DENIED,
    "NoSuchBucket": _ABSENT,
    "QueueDoesNotExist": _ABSENT,
    "ResourceNotFoundException": _ABSENT,
    "NoCredentialsError": "there are no AWS credentials: log in, or set AWS_PROFILE",
    "PartialCredentialsError": "the AWS credentials are not whole: log in, or set AWS_PROFILE",
    "ProfileNotFound": "there is no such AWS profile: AWS_PROFILE names another",
    "NoRegionError": "no AWS region is named: set AWS_DEFAULT_REGION",
}


def in_words(error: Exception) -> str | None:
    """What AWS's SDK says, for people; None for what does not come from there."""
    if not type(error).__module__.startswith("botocore"):
        return None
    answer: Any = getattr(error, "response", {})
    code = str(answer.get("Error", {}).get("Code") or type(error).__name__)
    operation = getattr(error, "operation_name", "")
    words = _WORDS.get(code, f"AWS: {code} {operation}".rstrip())
    return words.format(operation=operation, prefix=os.environ.get(PREFIX_ENVIRONMENT, "askonce"))

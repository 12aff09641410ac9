"""A certificate made up for the tests, that says it is SNS's, and its key."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from connectors import sns
from infra.local.simulators.sms import Sign

PEM = (Path(__file__).parent / "keys" / "sns_made_up.pem").read_bytes()
CERTIFICATE = x509.load_pem_x509_certificate(PEM).public_bytes(serialization.Encoding.PEM)
CERTIFICATE_URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem"


def signer(version: str = "2", key: rsa.RSAPrivateKey | None = None) -> Sign:
    """Signs as a version of SNS's signature has it."""
    own = key or serialization.load_pem_private_key(PEM, None)
    assert isinstance(own, rsa.RSAPrivateKey)
    hashed = hashes.SHA1() if version == "1" else hashes.SHA256()
    return lambda text: own.sign(text, padding.PKCS1v15(), hashed)


def know_certificate(pem: bytes = CERTIFICATE, url: str = CERTIFICATE_URL) -> None:
    """As if it had been downloaded already."""
    sns.certificates[url] = pem

"""What Tencent's pushes are made of: flat XML or JSON, and envelopes that are wrong anywhere."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from chalicelib.errors import PayloadError
from connectors import wechat_wire
from tests.make_samples import WECHAT


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b"<xml><A>1</A><B><![CDATA[<2>]]></B></xml>", {"A": "1", "B": "<2>"}),
        (b"<xml><A>1</A><A>2</A></xml>", {"A": "1"}),
        (b"<xml><A><B>1</B><B>2</B></A></xml>", {"A.B": "1"}),
        (b"<xml><A>x<B/>y</A></xml>", {"A.B": ""}),
        (b"<xml>words<A b='c'> 1 </A></xml>", {"A": " 1 "}),
        (b"<xml><A> <![CDATA[ 1 ]]>\n</A></xml>", {"A": " 1 "}),
        (b"<xml><A>a <![CDATA[b]]> c</A></xml>", {"A": "a b c"}),
        (b"<xml><A> <![CDATA[]]> </A><B> </B></xml>", {"A": "", "B": " "}),
        (b"<xml><A><![CDATA[ ]]]]><![CDATA[> ]]></A></xml>", {"A": " ]]> "}),
        (b"<xml/>", {}),
    ],
)
def test_a_document_is_read_as_its_leaves(document: bytes, found: dict[str, str]) -> None:
    assert wechat_wire.fields(document) == found


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"<!DOCTYPE xml><xml><A>1</A></xml>", "document type"),
        (b'<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml/>', "document type"),
        (b"<xml>" + b"<A>" * 8 + b"</A>" * 8 + b"</xml>", "nested too deeply"),
        (b"<xml>" + b"<A/>" * 500 + b"</xml>", "too many elements"),
        (b"<html><A>1</A></html>", "root"),
        (b"<xml><A>1</xml>", "no XML"),
        (b"<xml><A>1</A></xml><xml/>", "no XML"),
        (b"<xml>&undefined;</xml>", "no XML"),
        ("<xml>中</xml>".encode("gbk"), "no XML"),
        (b"", "no XML"),
    ],
)
def test_a_document_that_is_none_of_wechat_s_is_a_payload_error(
    document: bytes, fault: str
) -> None:
    with pytest.raises(PayloadError, match=fault):
        wechat_wire.fields(document)


KEY = wechat_wire.aes_key(WECHAT["encoding_aes_key"])


def sealed(clear: bytes) -> str:
    """Any bytes, encrypted as envelopes are, whatever their padding says."""
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(KEY[:16])).encryptor()
    return base64.b64encode(encryptor.update(clear) + encryptor.finalize()).decode()


def padded(length: int, receiver: str, padding: bytes) -> bytes:
    """Sixteen bytes of chance, the length, a message of four bytes, the receiver, the padding."""
    return b"r" * 16 + length.to_bytes(4, "big") + b"text" + receiver.encode() + padding


APP = WECHAT["app_id"]  # 18 characters: 22 bytes of padding are missing


def test_an_envelope_made_by_hand_opens() -> None:
    assert wechat_wire.decrypt(sealed(padded(4, APP, b"\x16" * 22)), KEY, APP) == b"text"


@pytest.mark.parametrize(
    "clear",
    [
        padded(4, APP, b"\x15" + b"\x16" * 21),
        padded(4, APP, b"\x16" * 21 + b"\0"),
        padded(4, APP, b"\x16" * 21 + b"\x21"),
        padded(4, APP, b"\x16" * 21 + b"\xff"),
        padded(5, APP, b"\x16" * 22),
        padded(3, APP, b"\x16" * 22),
        padded(2**32 - 1, APP, b"\x16" * 22),
        padded(4, "x" + APP[1:], b"\x16" * 22),
        padded(4, APP + "x", b"\x15" * 21),
        b"\x20" * 32,
        b"\x10" * 16,
        b"",
    ],
)
def test_an_envelope_that_is_wrong_anywhere_does_not_open(clear: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^the envelope cannot be opened$"):
        wechat_wire.decrypt(sealed(clear), KEY, APP)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (
            b'{"MsgId": 2486219589123456789, "A": 1.10}',
            {"MsgId": "2486219589123456789", "A": "1.10"},
        ),
        (b'{"A": {"B": [{"C": "1"}, {"C": "2"}]}}', {"A.B.C": "1"}),
        (b'{"A": "first", "A": "second"}', {"A": "first"}),
        (b'{"A": null, "B": true, "C": []}', {"A": "", "B": "true"}),
        (b'\xef\xbb\xbf {"A": "\\ud83d\\ude00 \\ud83d"}', {"A": "\U0001f600 \ufffd"}),
    ],
)
def test_a_json_document_is_read_as_its_leaves(document: bytes, found: dict[str, str]) -> None:
    assert wechat_wire.read(document) == found


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b'{"A": ' + b"[" * 100_000, "no JSON"),
        (b'{"A": ' * 9 + b"1" + b"}" * 9, "nested too deeply"),
        (json.dumps({str(n): n for n in range(501)}).encode(), "too many elements"),
        (b'{"A": "\xff"}', "no JSON"),
        ('{"A": "中"}'.encode("utf-16"), "no XML"),
        (b"{", "no JSON"),
    ],
)
def test_a_json_document_that_is_none_of_wechat_s_is_a_payload_error(
    document: bytes, fault: str
) -> None:
    with pytest.raises(PayloadError, match=fault):
        wechat_wire.read(document)

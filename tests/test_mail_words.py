"""A mail's words: labels that lie, headers that break the rules, names that are tricks."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import PayloadError
from connectors import mime
from connectors.charsets import decode
from connectors.mail_headers import addresses, file_name, header_text, ids, parameters, people

bounded = settings(max_examples=200, deadline=None)
ZH = "您好，我的订单还没有收到，请帮忙查询。"
TW = "您好，我的訂單尚未收到，請協助查詢。"
JA = "お世話になっております。注文がまだ届いていません。"
KO = "안녕하세요, 주문이 아직 도착하지 않았습니다."
RU = "Здравствуйте, где мой заказ?"
DE = "Grüße aus München, schöne Häuser und ein Straßenfest"

# Charsets


@pytest.mark.parametrize(
    ("text", "really", "label"),
    [
        (ZH, "gbk", "gb2312"),
        (ZH, "gbk", "GB2312; format=flowed"),
        (ZH, "gbk", "'gbk'"),
        (ZH, "gbk", "utf-8"),
        (ZH, "gbk", "us-ascii"),
        (ZH, "gbk", "iso-8859-1"),
        (ZH, "gbk", "windows-1252"),
        (ZH, "gbk", "iso-8859-15"),
        (ZH, "gbk", "big5"),
        (ZH, "gbk", "euc-kr"),
        (ZH, "gbk", "x-nobody-knows"),
        (ZH, "gbk", "_autodetect_all"),
        (ZH, "gbk", ""),
        (ZH, "utf-8", "gb2312"),
        (ZH, "utf-8", "iso-8859-1"),
        (ZH, "utf-8", "iso-2022-jp"),
        (ZH, "utf-8", "uft-8"),
        (ZH, "utf-8-sig", ""),
        (ZH, "utf-16", ""),
        (ZH, "utf-16-le", "utf-16le"),
        (ZH, "hz", "hz-gb-2312"),
        (ZH, "utf-7", "unicode-1-1-utf-7"),
        ("客户：𠀋某，地址：㙍头村。", "gb18030", "gb2312"),
        ("镕基、喆、囍、玥，请查收。", "gbk", "iso-8859-1"),
        (TW, "big5", "big5"),
        (TW, "big5", ""),
        (TW, "big5", "gb2312"),
        (TW, "big5", "iso-8859-1"),
        (KO, "euc-kr", "iso-8859-1"),
        (JA, "shift_jis", "iso-8859-1"),
        (JA, "euc_jp", "windows-1252"),
        (RU, "cp1251", "iso-8859-1"),
        ("Ещё чай, пожалуйста", "koi8-r", ""),
        ("谢谢", "gbk", ""),
        ("谢谢", "gbk", "iso-8859-1"),
        ("hello 你好", "gbk", "us-ascii"),
        ("Привет", "utf-8", ""),
        ("Çà et là", "latin-1", ""),
        ("ÆØÅ", "latin-1", "us-ascii"),
        ("我哋嘅訂單", "big5hkscs", "big5"),
        (JA, "shift_jis", "x-sjis"),
        (JA, "shift_jis", ""),
        (JA, "shift_jis", "utf-8"),
        (JA, "euc_jp", "x-euc-jp"),
        (JA, "euc_jp", ""),
        (JA, "iso-2022-jp", "iso-2022-jp"),
        (JA, "iso-2022-jp", ""),
        (JA, "iso-2022-jp", "_iso-2022-jp$esc"),
        ("①㈱髙橋様", "cp932", "shift_jis"),
        (KO, "euc-kr", "ks_c_5601-1987"),
        (KO, "euc-kr", ""),
        (RU, "koi8-r", "koi8-r"),
        (RU, "cp1251", "windows-1251"),
        (RU, "koi8-r", ""),
        (RU, "utf-8", "koi8-r"),
        (DE, "latin-1", "iso-8859-1"),
        (DE, "latin-1", ""),
        ("ÄÖÜ ESPAÑA ÉTÉ", "latin-1", "iso-8859-1"),
        ("„Zitat“ – 10 €", "cp1252", "iso-8859-1"),
        ("ŁÓDŹ", "iso-8859-2", "iso-8859-2"),
        ("Ωμέγα", "iso-8859-7", "iso-8859-7"),
    ],
)
def test_bytes_are_read_as_what_they_are(text: str, really: str, label: str) -> None:
    assert decode(text.encode(really), label) == text


def test_japanese_mail_has_the_characters_that_windows_added() -> None:
    shifted = b"\x1b$B\x2d\x21\x2d\x6a\x7c\x62\x1b(J \x1b(I\x4a\x5d\x36\x38\x1b(B!"
    assert decode(shifted, "iso-2022-jp") == "①㈱髙 ﾊﾝｶｸ!"


@pytest.mark.parametrize(
    ("content", "label", "text"),
    [
        ("您好，请帮忙".encode()[:-1], "utf-8", "您好，请帮\ufffd"),
        ("您好，请帮忙".encode("gbk")[:-1], "gbk", "您好，请帮\ufffd"),
        (b"100\x80" + "元".encode("gbk"), "gbk", "100€元"),
    ],
)
def test_one_bad_byte_leaves_the_rest_readable(content: bytes, label: str, text: str) -> None:
    assert decode(content, label) == text


@bounded
@given(
    content=st.binary(max_size=80),
    label=st.text(max_size=12) | st.sampled_from(["gbk", "big5", "iso-2022-jp", "hz", "utf-16"]),
)
def test_any_bytes_become_text(content: bytes, label: str) -> None:
    decode(content, label).encode("utf-8")


# Headers


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


GB = "【紧急】退款申请——请尽快处理并回复".encode("gb18030")
QP = "".join(f"={byte:02X}" for byte in GB)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (f"=?gb2312?B?{b64(GB[:7])}?=\r\n =?gb2312?B?{b64(GB[7:])}?=", GB.decode("gb18030")),
        (f"=?gbk?B?{b64(GB)[:13]}?=\r\n =?gbk?B?{b64(GB)[13:]}?=", GB.decode("gb18030")),
        (f"=?gbk?Q?{QP[:21]}?= =?GBK?q?{QP[21:]}?=", GB.decode("gb18030")),
        ("Re:=?utf-8?B?6K6i5Y2V?=abc", "Re:订单abc"),
        ("=?utf-8*en?q?caf=C3=A9?=", "café"),
        ("=?utf-8?Q?hello w=C3=B6rld?=", "hello wörld"),
        ("=?utf-8?Q?where_is_it??=", "where is it?"),
        (f"=?iso2022_jp?B?{b64('注文'.encode('iso-2022-jp'))}?=", "注文"),
        ("a\r\n\tb\r\n c", "a b c"),
        ("=?utf-8?q?x=0D=0ABcc:_eve?=", "x Bcc: eve"),
        ("=?utf-8?q?gpj.=E2=80=AEexe?=", "gpj. exe"),
        ("=?", "=?"),
        ("订单　查询", "订单　查询"),
    ],
)
def test_a_header_reads_as_one_line(raw: str, text: str) -> None:
    assert header_text(raw.encode()) == text


@pytest.mark.parametrize("charset", ["gbk", "big5", "cp932", "euc_jp", "utf-8", "iso-2022-jp"])
def test_a_raw_header_is_read_with_the_help_of_the_body_s_charset(charset: str) -> None:
    text = "注文" if charset in ("cp932", "euc_jp", "iso-2022-jp") else "訂單"
    raw = f"From: a@b.example\r\nSubject: {text}\r\nContent-Type: text/plain; charset={charset}\r\n"
    assert mime.read((raw + "\r\nx").encode(charset)).subject == text


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Li <li@example.com>", [("Li", "li@example.com")]),
        ("Wei, Li <LI@example.com>", [("Wei, Li", "li@example.com")]),
        ('"Wei; Li" <li@example.com>', [("Wei; Li", "li@example.com")]),
        ('"a\\"b" <li@example.com>', [('a"b', "li@example.com")]),
        ("li@example.com (Li)", [("Li", "li@example.com")]),
        ("<li@example.com>", [("", "li@example.com")]),
        ("a@b.example; c@d.example", [("", "a@b.example"), ("", "c@d.example")]),
        ("undisclosed-recipients:;", []),
        ('all: x@y.example, "Q, R" <q@r.example>;', [("", "x@y.example"), ("Q, R", "q@r.example")]),
        ("=?gbk?B?zfUsIM7l?= <w@qq.example>", [("王, 五", "w@qq.example")]),
        ('"=?gbk?B?zfUsIM7l?=" <w@qq.example>', [("王, 五", "w@qq.example")]),
        ("a@b.example)c@d.example", [("", "a@b.example"), ("", "c@d.example")]),
        ("<a@b.example> <c@d.example>", [("", "a@b.example"), ("", "c@d.example")]),
        ("(" * 1000, []),
        ('"' * 999, []),
        ("<" * 4000, []),
    ],
)  # fmt: skip
def test_people_are_told_apart(value: str, found: list[tuple[str, str]]) -> None:
    assert addresses([value.encode()]) == found


@bounded
@given(value=st.text(alphabet='ab@.<>()",;: \\\r\n=?', max_size=60))
def test_an_address_never_holds_what_could_end_it(value: str) -> None:
    people([value.encode()])
    for _, address in addresses([value.encode()]):
        assert address.count("@") == 1
        assert not set(address) & set('<>()",;: \\\r\n')


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("<a@b> <c@d>", ["<a@b>", "<c@d>"]),
        ("< a@b >", ["<a@b>"]),
        ("<a@\r\n b>", ["<a@b>"]),
        ("a@b c@d", ["<a@b>", "<c@d>"]),
        ('Your mail of Monday "<a@b>"', ["<a@b>"]),
        ("<\udce9@b>", []),
        ("no id", []),
        ("<" * 4000, []),
    ],
)
def test_ids_are_found_whatever_stands_around_them(value: str, found: list[str]) -> None:
    assert ids(value.encode("utf-8", "surrogateescape")) == found


def test_the_nearest_mail_that_is_answered_comes_first() -> None:
    head = "From: a@b.example\nIn-Reply-To: <3@x>\nReferences: <1@x> <2@x>\n <3@x>\n\nx"
    assert mime.read(head.encode()).references == ("<3@x>", "<2@x>", "<1@x>")


# Names

NAME = "合同（最终）.pdf"
GBK_NAME = NAME.encode("gbk")


@pytest.mark.parametrize(
    ("disposition", "content_type", "name"),
    [
        (f"attachment; filename*=utf-8''{quote(NAME)}", "", NAME),
        (f"attachment; filename*=\"UTF-8''{quote(NAME)}\"", "", NAME),
        (f"attachment; filename*=GB18030'zh'{quote(GBK_NAME)}", "", NAME),
        (
            f"attachment;\r\n filename*0*=gb2312''{quote(GBK_NAME[:5])};\r\n"
            f" filename*1*={quote(GBK_NAME[5:])}",
            "",
            NAME,
        ),
        ("attachment; filename*1=\"b.pdf\"; filename*0*=utf-8''%E5%90%88", "", "合b.pdf"),
        (
            'attachment; filename*0="a very long"; filename*1=" name.pdf"',
            "",
            "a very long name.pdf",
        ),
        ("attachment", f'application/pdf; name="=?GBK?B?{b64(GBK_NAME)}?="', NAME),
        ("", f"application/pdf; name*0*=utf-8''{quote(NAME[:2])}; name*1*={quote(NAME[2:])}", NAME),
        (f'attachment; filename="{quote(NAME)}"', "", NAME),
        ('attachment; filename="100%.pdf"', "", "100%.pdf"),
        ("attachment; filename=a b c.pdf", "", "a b c.pdf"),
        ('attachment; filename="a;b\\"c.pdf"', "", 'a;b"c.pdf'),
        ('attachment; filename="C:\\new\\x.pdf"', "", "x.pdf"),
        ('attachment; filename="../../.htaccess"', "", "htaccess"),
        ("attachment; filename*=utf-8''e%CC%81.pdf", "", "é.pdf"),
        (f"attachment; filename=right.pdf; filename*=utf-8''{quote(NAME)}", "a/b; name=no", NAME),
        ("attachment; filename*99999=x", "", ""),
        ("attachment", "application/pdf", ""),
    ],
)
def test_a_file_s_name_is_found_where_mailers_put_it(
    disposition: str, content_type: str, name: str
) -> None:
    assert file_name(disposition.encode(), content_type.encode()) == name


@pytest.mark.parametrize("charset", ["gbk", "utf-8"])
def test_a_file_s_name_may_be_raw_bytes(charset: str) -> None:
    assert file_name(f'attachment; filename="{NAME}"'.encode(charset), b"") == NAME


@bounded
@given(value=st.binary(max_size=80) | st.text("a;*=0\"\\'% ", max_size=60).map(str.encode))
def test_any_parameters_are_read(value: bytes) -> None:
    assert all(isinstance(v, str) for v in parameters(b"a/b;" + value).values())


# Machines


@pytest.mark.parametrize(
    ("header", "automatic", "listed"),
    [
        ("Subject: 自动回复：我在休假", True, False),
        ("Subject: 自動返信: ありがとう", True, False),
        ("Subject: Abwesenheitsnotiz: Urlaub", True, False),
        ("Subject: Réponse automatique : Absence", True, False),
        ("Subject: [Auto-Reply] ticket", True, False),
        ("Subject: Out of Office", True, False),
        ("Subject: Out of Office Reply from Li", True, False),
        ("Subject: 【自动回复】您好", True, False),
        ("Subject: 自动回复怎么设置", False, False),
        ("Subject: 系统退信", True, False),
        ("Subject: 请问自动回复怎么设置？", False, False),
        ("Subject: Out of office chairs?", False, False),
        ("From: no_reply@shop.example", True, False),
        ("From: bruno-reply@shop.example", False, False),
        ("From: MAILER-DAEMON@shop.example", True, False),
        ("Auto-Submitted: auto-replied (vacation)", True, False),
        ("Auto-Submitted: No", False, False),
        ("Precedence: list", True, True),
        ("List-Unsubscribe: <https://x.example>", True, True),
        ("X-Failed-Recipients: a@b.example", True, False),
        ("Content-Type: message/disposition-notification", True, False),
    ],
)
def test_machines_and_lists_are_known(header: str, automatic: bool, listed: bool) -> None:
    usual = "" if header.startswith("From") else "From: li@example.com\n"
    found = mime.read(f"{usual}{header}\n\nx".encode())
    assert (found.automatic, found.listed) == (automatic, listed)


def test_headers_are_to_be_had_by_name() -> None:
    raw = b"From: a@b.example\nX-A: =?utf-8?q?=C3=A9?=\nX-A: 2\nAuto-Submitted: Auto-Replied; x\n\n"
    found = mime.read(raw)
    assert found.header("x-a") == ("é", "2")
    assert found.header("X-B") == ()
    assert found.auto_submitted == "auto-replied"


# Who wrote


@pytest.mark.parametrize(
    ("head", "sender", "alone"),
    [
        ("From: a@b.example", "a@b.example", True),
        ("From: a@b.example\nFrom: c@d.example", "a@b.example", False),
        ("From: a@b.example\nFrom: somebody else", "a@b.example", False),
        ("From: a@b.example, c@d.example", "a@b.example", False),
        ("Sender: a@b.example", "a@b.example", False),
        ("Reply-To: a@b.example", "a@b.example", False),
    ],
)
def test_only_one_author_in_from_may_count_as_evidence(head: str, sender: str, alone: bool) -> None:
    found = mime.read(f"{head}\n\nx".encode())
    assert (found.sender, found.one_author) == (sender, alone)


@pytest.mark.parametrize("head", ["Subject: x", "From: nobody\nSender: a@b.example", "From: <@>"])
def test_a_mail_that_nobody_wrote_is_a_payload_error(head: str) -> None:
    with pytest.raises(PayloadError, match="no author"):
        mime.read(f"{head}\n\nx".encode())


def test_an_address_as_a_name_is_only_a_name() -> None:
    found = mime.read(b'From: "boss@shop.example" <eve@evil.example>\n\nx')
    assert (found.sender, found.sender_name) == ("eve@evil.example", "boss@shop.example")

"""Which parts of a mail are its text, which are files, and how HTML becomes either."""

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import PayloadError
from connectors import mime, tnef
from connectors.hypertext import clean_html, html_text
from tests.tnef_files import COMPRESSED_RTF, COMPRESSED_TEXT, properties, stored_rtf
from tests.tnef_files import tnef as tnef_file

bounded = settings(max_examples=200, deadline=None)
HEAD = "From: Li <li@example.com>\nSubject: Tea\n"


def part(content: str, kind: str = "text/plain; charset=utf-8", more: str = "") -> str:
    return f"Content-Type: {kind}\n{more}\n{content}"


def multipart(kind: str, *parts: str, boundary: str = "b") -> str:
    inner = "".join(f"--{boundary}\n{each}\n" for each in parts)
    return f"Content-Type: multipart/{kind}; boundary={boundary}\n\n{inner}--{boundary}--\n"


def read(body: str) -> mime.Mail:
    return mime.read((HEAD + body).encode())


def names(mail: mime.Mail) -> list[str]:
    return [a.name for a in mail.attachments]


FILE_HEAD = "Content-Disposition: attachment\n"
PNG = part("PNG", "image/png; name=a.png", "Content-ID: <a@b>\n")
HTML = "text/html; charset=utf-8"
REAL = part("<p>Where is <b>my</b> tea?</p>", HTML)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (part("plain"), "plain"),
        (multipart("alternative", part("plain"), REAL), "plain"),
        (multipart("alternative", REAL, part("plain")), "plain"),
        (multipart("alternative", part("  \n"), REAL), "Where is my tea?"),
        (multipart("alternative", part("Please view this in HTML."), REAL), "Where is my tea?"),
        (
            multipart("alternative", part("您的邮件客户端不支持HTML格式"), REAL),
            "Where is my tea?",
        ),
        (
            multipart(
                "alternative", part("p"), multipart("related", REAL, PNG, boundary="c")
            ),
            "p",
        ),
        (
            multipart(
                "related", multipart("alternative", part("p"), REAL, boundary="c"), PNG
            ),
            "p",
        ),
        (multipart("mixed", part("before"), PNG, part("after")), "before\nafter"),
        (multipart("mixed", REAL, PNG, part("after")), "Where is my tea?\nafter"),
        (multipart("mixed", part("Where is my tea?"), REAL), "Where is my tea?"),
        (multipart("mixed", part("see"), part("a", more=FILE_HEAD)), "see"),
        (multipart("mixed", part("only", "text/plain; name=x.txt")), "only"),
        (multipart("mixed", part("see"), part("Subject: x\n\ninner", "message/rfc822")), "see"),
        ("Content-Type: multipart/mixed; boundary=never\n\nbody", "body"),
        ("Content-Type: multipart/mixed\n\n--x\nContent-Type: text/plain\n\nbody\n--x--", "body"),
        ("Content-Type: nonsense\n\nbody", "body"),
        ("Content-Transfer-Encoding: 7-bit\n\nbody", "body"),
        ("Content-Transfer-Encoding: quoted- printable\n\n=62ody", "body"),
        ("Content-Transfer-Encoding: base64\n\nYm9\n!keQ==\n", "body"),
        ("Content-Transfer-Encoding: base64\n\nYm8=ZHk=", "body"),
        ("Content-Transfer-Encoding: x-uuencode\n\nbegin 644 a\n$8F]D>0``\n`\nend", "body"),
    ],
)  # fmt: skip
def test_the_text_is_found_wherever_it_stands(body: str, text: str) -> None:
    assert read(body).full_text == text


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (multipart("mixed", part("see"), PNG), ["a.png"]),
        (multipart("mixed", part("see"), part("%PDF", "application/pdf")), [""]),
        (multipart("mixed", part("see"), part("x", more=FILE_HEAD)), [""]),
        (multipart("mixed", part("Subject: 你好\n\nx", "message/rfc822")), ["你好.eml"]),
        (multipart("mixed", part("Subject: a/b\n\nx", "message/rfc822")), ["b.eml"]),
        (multipart("mixed", part("x", "message/rfc822; name=in.eml")), ["in.eml"]),
        (multipart("digest", "\nSubject: one\n\nx", "\nSubject: two\n\ny"), ["one.eml", "two.eml"]),
        (part("x", "image/png", "Content-Location: http://x.example/a%20b.png?c\n"), ["a%20b.png"]),
        (part("x", "image/png", "Content-Location: http://x.example/\n"), [""]),
        (multipart("alternative", part("p"), part("x", "text/x-amp-html"), REAL), []),
        (multipart("signed", part("p"), part("x", "application/x; name=s.asc")), ["s.asc"]),
    ],
)  # fmt: skip
def test_files_have_their_names(body: str, found: list[str]) -> None:
    assert names(read(body)) == found


def test_a_forwarded_mail_is_a_file_as_it_came() -> None:
    inner = "From: wei@example.com\nSubject: inner\n\nnot ours"
    found = read(multipart("mixed", part("see"), part(inner, "message/rfc822")))
    assert (found.subject, found.full_text) == ("Tea", "see")
    assert found.attachments[0].content == inner.encode()


# Flowed text


@pytest.mark.parametrize(
    ("text", "flowed"),
    [
        ("a long \nline.\n\nnew", "a long line.\n\nnew"),
        ("> quoted \n> text.\nmine", "> quoted text.\nmine"),
        ("> a \n>> b \n>> c", "> a\n>> b c"),
        ("soft \n-- \nLi", "soft\n-- \nLi"),
        (" >stuffed\n  two", ">stuffed\n two"),
        ("a \n\nb", "a\nb"),
    ],
)
def test_flowed_text_flows(text: str, flowed: str) -> None:
    assert read(part(text, "text/plain; charset=utf-8; format=flowed")).full_text == flowed


def test_flowed_chinese_has_no_blanks_where_it_was_broken() -> None:
    kind = "text/plain; charset=utf-8; format=flowed; delsp=yes"
    assert read(part("你好， \n请问", kind)).full_text == "你好，请问"


# HTML


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b <b>c</b>\n d</p>", "a\nb c d"),
        ("<div>a<br></div><div><br></div><div>b</div>", "a\n\nb"),
        ("a<br><br>b", "a\n\nb"),
        ("<ul><li>one<li>two</ul><ol start=3><li>three</ol>", "- one\n- two\n3. three"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></table>d", "a | b\nc\nd"),
        ("<table><tr><td><table><tr><td>a</td></tr></table></td><td>b</td></tr></table>", "a\nb"),
        ('<a href="https://x.example/y">here</a>', "here (https://x.example/y)"),
        ('<a href="https://www.x.example/">x.example</a>', "x.example"),
        ('<a href="mailto:a@b.example">a@b.example</a>', "a@b.example"),
        ('<a href="javascript:x()">js</a>', "js"),
        ("<blockquote>a<blockquote>b</blockquote></blockquote>c", "> a\n> > b\nc"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ('<div style="display: none">preheader</div>seen', "seen"),
        ("<style>a{}</style><script>b()</script><title>t</title>seen", "seen"),
        ("1 &lt; 2 &amp;&nbsp;3", "1 < 2 & 3"),
        ('<img src="https://x.example/t.gif" alt="pixel">x', "x"),
        ('<img alt="😀" src="x">', "😀"),
        ("a\ue000<br>b&#xe000;", "a\nb"),
        ("<p>never closed", "never closed"),
        ("<!-- hidden -->seen", "seen"),
    ],
)
def test_html_reads_as_it_looks(html: str, text: str) -> None:
    assert html_text(html) == text


@pytest.mark.parametrize(
    ("html", "clean"),
    [
        ('<p onclick="x()" style="color:red" class="c">a</p>', "<p>a</p>"),
        ("<script>x</script><style>y</style>a", "a"),
        ('<img src="https://x.example/t.gif">a', "a"),
        ('<img src="data:image/png;base64,AAAA">a', "a"),
        ('<img src="cid:a@b" onerror="x()">', '<img src="cid:a@b">'),
        ('<a href="javascript:x()">a</a>', '<a rel="noopener noreferrer">a</a>'),
        ('<form action="/x"><input name="password">a</form>', "a"),
        ('<iframe src="https://x.example"></iframe>a', "a"),
        ('<base href="https://x.example"><meta http-equiv="refresh">a', "a"),
        ('<svg onload="x()"><a>b</a></svg>a', "a"),
        ('<blockquote cite="https://x.example">a</blockquote>', "<blockquote>a</blockquote>"),
        ('<img src="x" alt="><script>y</script>">a', "a"),
    ],
)
def test_html_is_harmless(html: str, clean: str) -> None:
    assert clean_html(html) == clean


def test_a_mail_keeps_its_html_and_its_pictures() -> None:
    html = part('<p onclick="x">a<img src="cid:a@b"></p>', HTML)
    found = read(multipart("related", html, PNG))
    assert found.html == '<p>a<img src="cid:a@b"></p>'
    assert names(found) == ["a.png"]
    assert read(part("plain")).html == ""


def test_the_page_s_own_charset_counts_where_the_mail_names_none() -> None:
    head = HEAD.encode() + b"Content-Type: text/html\n\n"
    html = '<meta charset="koi8-r"><p>Где мой чай</p>'.encode("koi8-r")
    assert mime.read(head + html).full_text == "Где мой чай"


HARMFUL = [
    "<script>",
    "<img src=x onerror=y>",
    "javascript:",
    "<style>",
    '">',
    "<!--",
    "<svg>",
    "cid:",
]


@bounded
@given(html=st.lists(st.sampled_from(HARMFUL) | st.text(max_size=6), max_size=10).map("".join))
def test_no_html_becomes_harmful(html: str) -> None:
    clean = clean_html(html)
    assert "<script" not in clean
    assert not any(" on" in tag.partition(">")[0] for tag in clean.split("<")[1:])
    html_text(html)


# Invitations

ICS = (
    "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Tea\\, for two\n"
    "DTSTART;TZID=Asia/Shanghai:20260102T100000\nDTEND:20260102T030000Z\nLOCATION:Room 1\n"
    "DESCRIPTION:Bring\\ncu\n ps\nEND:VEVENT\nEND:VCALENDAR"
)


def test_an_invitation_is_a_file_and_is_read_where_there_is_no_text() -> None:
    found = read(part(ICS, "text/calendar; method=REQUEST; charset=utf-8; name=invite.ics"))
    assert names(found) == ["invite.ics"]
    assert found.full_text.split("\n") == [
        "Tea, for two", "2026-01-02 10:00", "– 2026-01-02 03:00 UTC", "Room 1", "Bring", "cups",
    ]  # fmt: skip


def test_an_invitation_s_own_words_go_first() -> None:
    found = read(multipart("alternative", part("Come!"), part(ICS, "text/calendar")))
    assert found.full_text == "Come!"


# winmail.dat


NIHAO = "你好".encode("gbk") + b"\0"


def rtf_body(rtf: bytes) -> bytes:
    return properties((0x1009, 0x102, stored_rtf(rtf)))


def winmail(content: bytes, words: str = "") -> mime.Mail:
    head = (
        "Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=winmail.dat\n"
    )
    encoded = base64.b64encode(content).decode()
    return read(multipart("mixed", part(words), part(encoded, "application/ms-tnef", head)))


LONG_NAME = "合同.pdf".encode("utf-16-le") + b"\0\0"
FILE = (
    (0x9002, b"\0" * 14),
    (0x8010, b"HETONG~1.PDF\0"),
    (0x800F, b"%PDF"),
    (0x9005, properties((0x3707, 0x1F, LONG_NAME), (0x370E, 0x1E, b"application/pdf\0"))),
)


def test_winmail_gives_its_files_and_is_none_itself() -> None:
    found = winmail(tnef_file(*FILE), "see")
    (file,) = found.attachments
    assert (file.name, file.media_type, file.content) == ("合同.pdf", "application/pdf", b"%PDF")
    assert found.full_text == "see"


@pytest.mark.parametrize(
    ("attribute", "content"),
    [
        (0x800C, NIHAO),
        (0x9003, properties((0x8001, 0x3, b"\1\0\0\0"), (0x1000, 0x1E, NIHAO))),
        (0x9003, properties((0x1000, 0x1F, "你好".encode("utf-16-le")))),
        (0x9003, properties((0x1013, 0x102, "<p>你好</p>".encode()))),
        (0x9003, rtf_body(b"{\\rtf1\\ansicpg936 \\'c4\\'e3\\'ba\\'c3}")),
        (0x9003, rtf_body(b"{\\rtf1{\\fonttbl x}\\u20320?\\u22909?}")),
    ],
)  # fmt: skip
def test_winmail_s_body_is_read_where_there_is_no_other(attribute: int, content: bytes) -> None:
    code_page = (0x9007, struct.pack("<II", 936, 0))
    assert winmail(tnef_file(code_page, (attribute, content))).full_text == "你好"


def test_compressed_rtf_is_read() -> None:
    content = properties((0x1009, 0x102, COMPRESSED_RTF))
    assert winmail(tnef_file((0x9003, content))).full_text == COMPRESSED_TEXT


def test_what_is_no_winmail_stays_a_file() -> None:
    assert names(winmail(b"something else", "see")) == ["winmail.dat"]


@bounded
@given(cut=st.integers(0, 300), noise=st.binary(max_size=60), at=st.integers(0, 300))
def test_any_winmail_is_read_as_far_as_it_is_whole(cut: int, noise: bytes, at: int) -> None:
    whole = tnef_file(*FILE, (0x9003, properties((0x1009, 0x102, COMPRESSED_RTF))))
    tnef.read(whole[:cut])
    tnef.read(whole[:at] + noise + whole[at + len(noise) :])
    tnef.rtf_text(noise)


# Any bytes


@settings(max_examples=300, deadline=None)
@given(
    raw=st.binary(max_size=200)
    | st.lists(
        st.sampled_from([
            b"From: a@b.example\n", b"Content-Type: multipart/mixed; boundary=b\n", b"\n", b"--b\n",
            b"--b--\n", b"Content-Type: text/html\n", b"Content-Type: message/rfc822\n", b"\r\n\r",
            b"Content-Transfer-Encoding: base64\n", b"Content-Type: application/ms-tnef\n", b"=A",
            b"Content-Type: text/calendar\n", b"BEGIN:VEVENT\n", b"x\xff\x80", b"\x1b$B", b" a=b\n",
        ]),
        max_size=20,
    ).map(b"".join)
)  # fmt: skip
def test_any_bytes_are_a_mail_or_a_payload_error(raw: bytes) -> None:
    try:
        found = mime.read(raw)
    except PayloadError:
        return
    for text in (found.text, found.full_text, found.subject, found.html):
        assert "\0" not in text
        text.encode("utf-8")


@pytest.mark.parametrize(
    "before", [b"\xef\xbb\xbf", b"\r\n\r\n", b"From li Fri Jan  2 2026\n", b">From x\n"]
)
def test_what_stands_before_the_first_header_is_passed_over(before: bytes) -> None:
    found = mime.read(before + HEAD.encode() + b"\nbody")
    assert (found.subject, found.full_text) == ("Tea", "body")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("From: a@b.example\r\nSubject: Tea\r\n\r\nbody\r\nmore", "body\nmore"),
        ("From: a@b.example\rSubject: Tea\r\rbody\rmore", "body\nmore"),
        ("From: a@b.example\nSubject: Tea\nbody begins\nat once", "body begins\nat once"),
        ("From: a@b.example\nstray\nSubject: Tea\n\nbody", "body"),
        ("From: a@b.example\nX: a\n\t\n b\nSubject: Tea\n\nbody", "body"),
        ("From: a@b.example\nSubject : Tea\n\nbody", "body"),
    ],
)
def test_headers_that_break_the_rules_are_read(raw: str, text: str) -> None:
    found = mime.read(raw.encode())
    assert (found.subject, found.full_text) == ("Tea", text)


CAPS = {
    "the mail is over": b"x" * (mime.MAX_BYTES + 1),
    "header is too long": b"From: a@b.example\nX: " + b"x" * mime.MAX_HEADER_BYTES + b"\n\n",
    "too many parts": (HEAD + multipart("mixed", *["\nx"] * 300)).encode(),
    "nested too deep": (
        HEAD + "".join(multipart("mixed", boundary=f"b{n}").rstrip("-\n") + "\n" for n in range(40))
    ).encode(),
}


@pytest.mark.parametrize(("fault", "raw"), CAPS.items())
def test_what_is_beyond_the_caps_is_a_payload_error(fault: str, raw: bytes) -> None:
    with pytest.raises(PayloadError, match=fault):
        mime.read(raw)

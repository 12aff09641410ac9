"""Mailgun, SendGrid and Postmark in the local world: asked by mail, answered by mail, and again."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import simulators
from infra.local.simulators import Sent, mail
from tests.local import Local, local, messages, notes, received
from tests.test_email_threads import bounce
from tests.test_end_to_end import ticket_with

pytestmark = pytest.mark.world

ROOT = Path(__file__).parents[1]
#: {inbox: what is asked there, unlike what is asked elsewhere}
QUESTIONS = {
    "email": "Do you ship green tea to Norway?",
    "mailgun": "How do I reset the password of my account?",
    "sendgrid": "What does engraving a teapot cost?",
    "postmark": "My invoice of March is missing.",
}
INBOXES = tuple(QUESTIONS)


def of_email(example: str) -> str:
    """The example's inboxes of email, and what is not an inbox."""
    sections = re.split(r"(?m)^(?=\[)", example)
    return "".join(
        s for s in sections if not s.startswith("[inboxes.") or s[9:].split("]")[0] in INBOXES
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("world")
    example = (ROOT / "examples" / "every-provider.toml").read_text(encoding="utf-8")
    config = folder / "email.toml"
    config.write_text(of_email(example), encoding="utf-8")
    with local(folder / "run", ASKONCE_CONFIG=str(config)) as running:
        yield running


@pytest.mark.parametrize("inbox", INBOXES)
def test_a_mail_is_answered_by_mail_and_the_next_one_joins(world: Local, inbox: str) -> None:
    question = QUESTIONS[inbox]
    assert world.client.say("mei", inbox, question, subject=f"On {inbox}")["status"] < 300
    ticket = ticket_with(world, question)
    answer = f"A colleague looks into it, by {inbox}."
    world.client.agent(ticket["id"], "reply", answer)
    world.wait(lambda s: answer in received(s, "email"), f"the answer by {inbox}")
    thanks = f"Takk, {inbox}!"
    assert world.client.say("mei", inbox, thanks, subject=f"Re: On {inbox}")["status"] < 300
    joined = ticket_with(world, thanks)
    assert joined["id"] == ticket["id"]
    assert [m["text"] for m in messages(joined)] == [question, thanks]


@pytest.mark.parametrize("inbox", INBOXES)
def test_a_stranger_s_mail_in_another_name_opens_a_ticket_of_its_own(
    world: Local, inbox: str
) -> None:
    own = f"Is the {inbox} cup in stock?"
    assert world.client.say("li", inbox, own)["status"] < 300
    first = ticket_with(world, own)
    forged = f"Send the {inbox} cup to another address."
    assert world.client.say("mallory", inbox, forged)["status"] < 300
    assert ticket_with(world, forged)["id"] != first["id"]


def undelivered(world: Local, inbox: str, mail_id: str) -> Sent:
    """What the provider tells of a mail that came back."""
    own_id = mail_id.strip("<").partition("@")[0]
    secrets = {
        name: world.secrets.get(f"ASKONCE_{inbox.upper()}_{name}", "")
        for name in ("SECRET", "SIGNING_KEY", "PATH_SECRET", "LOGIN")
    }
    path = f"/webhooks/{inbox}"
    match inbox:
        case "mailgun":
            event = {
                "event": "failed",
                "severity": "permanent",
                "message": {"headers": {"message-id": mail_id.strip("<>")}},
                "delivery-status": {"message": "550 no such mailbox"},
            }
            path = f"{path}/{secrets['PATH_SECRET']}"
            return mail.mailgun_event(secrets["SIGNING_KEY"], event, path=path)
        case "sendgrid":
            told = {"event": "bounce", "askonce_id": own_id, "reason": "550 no such mailbox"}
            return mail.sendgrid_events([told], path=path)
        case "postmark":
            told = {
                "RecordType": "Bounce",
                "Type": "HardBounce",
                "MessageID": "5a0b",
                "Description": "550 no such mailbox",
            }
            return mail.postmark(
                told | {"Metadata": {"askonce_id": own_id}},
                path=f"{path}/{secrets['PATH_SECRET']}",
                login=secrets["LOGIN"],
            )
    raw, envelope = bounce(mail_id), {"mail_from": "", "rcpt_to": ["help@shop.example"]}
    return simulators.signed_mail(secrets["SECRET"], raw, envelope)


@pytest.mark.parametrize("inbox", INBOXES)
def test_an_agent_hears_that_an_answer_came_back(world: Local, inbox: str) -> None:
    question = f"{QUESTIONS[inbox]} Please tell {inbox}."
    assert world.client.say("mei", inbox, question)["status"] < 300
    ticket = ticket_with(world, question)
    answer = f"This one comes back to {inbox}."
    world.client.agent(ticket["id"], "reply", answer)
    line = world.wait(
        lambda s: next((x for x in s["lines"] if x.get("text") == answer), None), "the answer"
    )
    assert world.post(undelivered(world, inbox, line["message_id"])).ok
    world.wait(
        lambda s: [
            note
            for t in s["tickets"]
            if t["id"] == ticket["id"]
            for note in notes(t)
            if "550" in note and "no such mailbox" in note
        ],
        f"a note about {inbox}",
    )

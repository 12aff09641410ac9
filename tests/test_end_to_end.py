"""The whole system over HTTP, as providers, agents and shells see it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local import simulators
from infra.local.people import LI, MEI
from infra.local.story import play
from tests.local import Local, askonce, local, messages, notes, received

pytestmark = pytest.mark.world

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("world")) as running:
        yield running


def ticket_with(world: Local, text: str) -> Any:
    """The ticket on which a customer said this."""
    return world.wait(
        lambda s: next(
            (t for t in s["tickets"] if any(text in m["text"] for m in messages(t))), None
        ),
        f"a ticket with {text}",
    )


def test_the_story_ends_with_one_ticket_two_channels_and_one_answer(world: Local) -> None:
    assert play(world.address, world.folder)


@pytest.mark.parametrize("channel", ["wechat", "email", "sms", "webchat"])
def test_a_question_becomes_a_ticket_and_its_answer_comes_back(world: Local, channel: str) -> None:
    question = f"Which of your teas is best with {channel} cake?"
    assert world.client.say("mei", channel, question)["status"] < 300
    ticket = ticket_with(world, question)
    answer = f"Darjeeling goes well with {channel} cake."
    world.client.agent(ticket["id"], "reply", answer)
    if channel == "webchat":
        world.wait(lambda _: answer in str(read_chat(world)), "the answer in web chat")
    else:
        world.wait(lambda s: answer in received(s, channel), f"the answer by {channel}")


def read_chat(world: Local) -> list[dict[str, Any]]:
    """Mei's web chat, as her browser reads it."""
    identity = requests.get(world.address.page + "/local/identity/mei", timeout=10).json()
    origin = world.address.page
    session = world.post(simulators.webchat_session(origin, identity_=identity["identity"]))
    found = requests.get(
        world.address.api + "/webchat/webchat/messages",
        headers={"Authorization": f"Bearer {session.json()['token']}", "Origin": origin},
        timeout=10,
    ).json()
    return list(found["messages"])


@pytest.mark.parametrize("channel", ["wechat", "email", "sms", "webchat"])
def test_an_image_reaches_the_helpdesk_from_every_channel(world: Local, channel: str) -> None:
    file = {"name": f"{channel}.png", "media_type": "image/png"}
    content = base64.b64encode(PNG).decode()
    text = "" if channel == "wechat" else f"the {channel} tin arrived like this"
    world.client.say("mei", channel, text, file={**file, "content": content})

    def attached(state: dict[str, Any]) -> Any:
        said = [m for t in state["tickets"] for m in messages(t) if m["channel"] == channel]
        return [f for m in said for f in m["files"] if f["content"]]

    assert base64.b64decode(world.wait(attached, "the image")[0]["content"]) == PNG


def test_a_redelivered_webhook_changes_nothing(world: Local) -> None:
    sent = world.wechat(MEI.openid, simulators.wechat_text("Do you deliver to Hangzhou?"))
    assert [world.post(sent).text for _ in range(3)] == ["success"] * 3
    ticket = ticket_with(world, "Do you deliver to Hangzhou?")
    world.client.say("mei", "sms", "And one more thing: do you sell kettles in Hangzhou?")
    ticket_with(world, "do you sell kettles")  # behind it in every queue: all has settled
    said = [m["text"] for t in world.state()["tickets"] for m in messages(t)]
    assert said.count("Do you deliver to Hangzhou?") == 1
    assert ticket["entries"]


def test_a_repeat_before_the_answer_is_told_its_reference_once(world: Local) -> None:
    """In WeChat's own response where there is time for it, else as a message of its own."""
    openid, question = "oNobodyElse", "请问碧螺春一斤多少钱？"
    assert world.post(world.wechat(openid, simulators.wechat_text(question))).text == "success"
    ticket = ticket_with(world, question)
    again = world.post(world.wechat(openid, simulators.wechat_text(f"您好，{question}")))
    passive = simulators.wechat_passive_text(world.wechat_secrets, again.text)

    def told(state: dict[str, Any]) -> Any:
        sent = [x["text"] for x in state["lines"] if x["address"] == openid]
        return [text for text in (*sent, passive or "") if ticket["reference"] in text]

    assert len(world.wait(told, "the reference")) == 1


def test_two_channels_at_once_make_one_ticket(world: Local) -> None:
    from concurrent.futures import ThreadPoolExecutor

    question = "Is the Lapsang gift box vegan and free of nuts?"
    sends = [
        world.wechat(MEI.openid, simulators.wechat_text(question)),
        world.sms(MEI.phone, question),
        world.email(MEI.email, question),
    ]
    with ThreadPoolExecutor(3) as pool:
        assert all(r.ok for r in pool.map(world.post, sends))

    def all_three(state: dict[str, Any]) -> Any:
        tickets = [t for t in state["tickets"] if any(question in m["text"] for m in messages(t))]
        return tickets if sum(len(messages(t)) for t in tickets) >= 3 else None

    assert len(world.wait(all_three, "all three messages")) == 1


def test_a_forged_sender_gets_nothing_of_the_owners(world: Local) -> None:
    question = "What did I order last week, and where is parcel 5512?"
    world.client.say("li", "wechat", question)
    owner = ticket_with(world, question)
    world.client.agent(owner["id"], "reply", "Parcel 5512 waits at your neighbour's, Ms Wang.")
    world.wait(lambda s: any("Ms Wang" in t for t in received(s, "wechat")), "the answer")
    world.client.say("mallory", "email", question)
    strange = world.wait(
        lambda s: next(
            (
                t
                for t in s["tickets"]
                if t["id"] != owner["id"] and any(question in m["text"] for m in messages(t))
            ),
            None,
        ),
        "a ticket of the stranger's own",
    )
    world.wait(lambda s: "not proven" in str(s["tickets"]), "the note")
    assert not any("Ms Wang" in text for text in received(world.state(), "email"))
    assert strange["reference"] != owner["reference"]


def test_an_agents_note_never_leaves_the_desk(world: Local) -> None:
    world.client.say("mei", "sms", "Can I return an opened tin of Assam?")
    ticket = ticket_with(world, "opened tin of Assam")
    world.client.agent(ticket["id"], "note", "difficult customer, be careful")
    world.client.agent(ticket["id"], "reply", "Yes, within two weeks.")
    world.wait(lambda s: "Yes, within two weeks." in received(s, "sms"), "the reply")
    assert "difficult" not in str(world.state()["lines"])


# Bad input


def test_a_forged_signature_is_401_with_an_empty_body_on_every_channel(world: Local) -> None:
    before = len(world.state()["tickets"])
    forged = [
        world.wechat(LI.openid, simulators.wechat_text("forged")),
        world.email("eve@example.com", "forged"),
        world.sms(LI.phone, "forged"),
        simulators.webchat_message("not.a.token", world.address.page, "forged"),
    ]
    for sent in forged:
        changed = simulators.Sent(
            sent.method,
            sent.path,
            sent.headers,
            sent.query,
            sent.body.replace(b"forged", b"x") + b" ",
        )
        if "webhooks/wechat" in sent.path:
            changed.query["msg_signature"] = "0" * 40
        response = world.post(changed)
        assert (response.status_code, response.text) == (401, ""), sent.path
    assert len(world.state()["tickets"]) == before


def test_an_unknown_inbox_is_404_and_a_body_over_the_cap_413(world: Local) -> None:
    sent = world.wechat(LI.openid, simulators.wechat_text("x"))
    nowhere = simulators.Sent(sent.method, "/webhooks/nowhere", sent.headers, sent.query, sent.body)
    assert world.post(nowhere).status_code == 404
    huge = simulators.Sent(
        sent.method, sent.path, sent.headers, sent.query, sent.body + b" " * 70_000
    )
    assert world.post(huge).status_code == 413


def test_an_authentic_but_unreadable_request_is_kept_in_quarantine(world: Local) -> None:
    raw = b"From: nobody in particular\r\nSubject: no address\r\n\r\nhello"
    sent = simulators.signed_mail(world.secrets["ASKONCE_EMAIL_SECRET"], raw, {"rcpt_to": []})
    assert world.post(sent).status_code == 202
    folder = str(world.folder)
    listed = askonce("quarantine", "list", "--folder", folder)
    quarantine_id = listed.stdout.split()[0]
    shown = askonce("quarantine", "show", quarantine_id, "--folder", folder)
    assert "no author's address" in shown.stdout
    assert "Subject: no address" in shown.stdout
    retried = askonce("quarantine", "retry", quarantine_id, "--folder", folder)
    assert (retried.returncode, retried.stderr.count("\n")) == (2, 1)


# The command line


def test_send_writes_as_a_customer_with_a_file(world: Local, tmp_path: Path) -> None:
    (tmp_path / "label.png").write_bytes(PNG)
    done = askonce(
        *("send", "email", "--from", "mei", "What does this label of Keemun say?"),
        *("--attach", str(tmp_path / "label.png"), "--folder", str(world.folder)),
    )
    assert done.returncode == 0, done.stderr
    said = messages(ticket_with(world, "label of Keemun"))
    files = [m["files"] for m in said if "label of Keemun" in m["text"]]
    assert [f["name"] for each in files for f in each] == ["label.png"]


def test_contacts_are_shown_linked_and_unlinked(world: Local) -> None:
    folder = ("--folder", str(world.folder))
    mallory = "phone:+14155550199"
    world.client.say("mallory", "sms", "How long does Pu-erh keep?")
    ticket_with(world, "Pu-erh")
    linked = askonce("contacts", "link", mallory, f"email:{MEI.email}", "--because", "ID", *folder)
    assert linked.returncode == 0, linked.stderr
    assert mallory in askonce("contacts", "show", f"email:{MEI.email}", *folder).stdout
    assert askonce("contacts", "unlink", mallory, *folder).returncode == 0
    shown = askonce("contacts", "show", mallory, *folder).stdout
    assert "unlinked" in shown
    assert MEI.email not in shown


def test_who_opted_out_is_shown_so_until_they_opt_in_again(world: Local) -> None:
    def shown() -> bool:
        told = askonce("contacts", "show", "phone:+14155550199", "--folder", str(world.folder))
        return "opted out" in told.stdout

    world.client.say("mallory", "sms", "STOP")
    world.wait(lambda _: shown(), "that Mallory opted out")
    world.client.say("mallory", "sms", "START")
    world.wait(lambda _: not shown(), "that Mallory opted in again")


def test_the_shop_list_stands_as_evidence(world: Local) -> None:
    shown = askonce("contacts", "show", f"email:{LI.email}", "--folder", str(world.folder)).stdout
    assert f"phone:{LI.phone}  verified, by customer list" in shown


def test_an_unknown_address_is_one_clear_line(world: Local) -> None:
    done = askonce("contacts", "show", "email:who@example.com", "--folder", str(world.folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nothing was ever heard of email:who@example.com\n"


def test_a_port_in_use_is_one_clear_line(world: Local, tmp_path: Path) -> None:
    port = world.address.page.rsplit(":", 1)[1]
    done = askonce("dev", "--port", port, "--folder", str(tmp_path / "other"))
    assert done.returncode == 2
    assert done.stderr == (
        f"port {port} is in use: stop what listens there, or choose another --port\n"
    )


def test_a_second_world_in_the_same_folder_is_refused(world: Local) -> None:
    done = askonce("dev", "--free-ports", "--folder", str(world.folder))
    assert done.returncode == 2
    assert "a world runs already" in done.stderr


def test_a_broken_configuration_names_inbox_and_key_and_can_be_left_out(tmp_path: Path) -> None:
    text = Path("askonce.toml").read_text(encoding="utf-8")
    broken = tmp_path / "askonce.toml"
    broken.write_text(text.replace('number = "+14155550100"', 'number = "none"\nnumbre = "x"'))
    done = askonce(
        "dev", "--free-ports", "--folder", str(tmp_path / "w"), ASKONCE_CONFIG=str(broken)
    )
    assert done.returncode == 2
    assert 'askonce.toml: inbox "sms": number' in done.stderr
    assert 'askonce.toml: inbox "sms": numbre is no setting that we know' in done.stderr
    config = {"ASKONCE_CONFIG": str(broken)}
    with local(tmp_path / "w", "--skip-broken", **config) as world:
        sent = world.wechat(LI.openid, simulators.wechat_text("Do the others still work?"))
        assert world.post(sent).status_code == 200
        assert world.post(simulators.Sent("POST", "/webhooks/sms")).status_code == 404


def test_no_note_or_log_line_holds_what_customers_wrote(world: Local) -> None:
    world.client.say("mei", "sms", "canary-words about a samovar")
    ticket = ticket_with(world, "canary-words")
    assert not any("canary" in note for note in notes(ticket))
    world.wait(lambda _: '"forwarded"' in json.dumps(world.client.log()), "it is on the ticket")
    told = json.dumps(world.client.log())
    assert "canary" not in told
    assert "+1415555" not in told

"""How a customer's words reach each connector in the local world: as its provider would post them.

A way records the line on the customer's phone and makes the request; every connector has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.policy import language_of
from connectors.signing import values
from infra.local import outside, simulators
from infra.local.people import Person
from infra.local.records import Records
from infra.local.simulators import File


@dataclass(frozen=True)
class Scene:
    """What a simulated provider knows: the inbox that it feeds, and the customers' phones."""

    inbox: str
    #: The inbox's settings, secrets included: the provider has them too.
    settings: Any
    #: The app's address, to post to.
    api: str
    #: Where the fake providers listen.
    origin: str
    records: Records
    #: Uploads a file to the provider; returns the provider's id of it.
    kept: Callable[[File], str]

    def say(self, channel: str, address: str, line: "Line", **more: str) -> None:
        """Show on the customer's phone what the customer wrote."""
        file = line.file
        files = [{"name": file.name, "media_type": file.media_type}] if file else []
        self.records.add_line(
            channel,
            address,
            "out",
            {"text": line.text, "files": files, "inbox": self.inbox, **more},
        )

    def post(self, sent: simulators.Sent) -> Any:
        """Make the request; returns requests' response."""
        return simulators.post(sent, self.api)


@dataclass(frozen=True)
class Line:
    """What a customer writes."""

    text: str
    subject: str = ""
    file: File | None = None


#: Returns requests' response to the webhook.
Way = Callable[[Scene, Person, Line], Any]


def ways() -> Mapping[str, Way]:
    """connector -> its way."""
    return {"email_mime": _email, "sms_twilio": _sms, **outside.declared("WAYS")}


def _email(scene: Scene, person: Person, line: Line) -> Any:
    latest = [
        told
        for told in scene.records.lines()
        if (told["channel"], told["address"], told["direction"]) == ("email", person.email, "in")
    ]
    answers = line.subject.lower().startswith("re:") and latest
    subject = line.subject or ("咨询" if language_of([line.text]) == "zh" else "A question")
    scene.say("email", person.email, line, subject=subject, sender=person.key)
    return scene.post(
        simulators.email(
            values(scene.settings.signing_secret)[0],
            sender=person.email,
            name=person.name,
            to=scene.settings.address,
            text=line.text,
            subject=subject,
            dmarc=person.dmarc,
            in_reply_to=latest[-1]["message_id"] if answers else "",
            file=line.file,
            inbox=scene.inbox,
        )
    )


def _sms(scene: Scene, person: Person, line: Line) -> Any:
    sid = scene.settings.account_sid
    held = {
        "account_sid": sid,
        "token": values(scene.settings.auth_token)[0],
        "number": scene.settings.number,
        "public_url": scene.api,
    }
    media: tuple[tuple[str, str], ...] = ()
    if line.file:
        place = f"{scene.origin}/providers/sms_twilio/2010-04-01/Accounts/{sid}/Messages/MM0/Media"
        media = ((f"{place}/{scene.kept(line.file)}", line.file.media_type),)
    scene.say("sms", person.phone, line)
    return scene.post(
        simulators.twilio(held, person.phone, line.text, media=media, inbox=scene.inbox)
    )

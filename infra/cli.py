"""`askonce`: run it here, look into it, write as a customer.

Bad input, bad configuration, a missing world: one line that names the thing and the mend, exit 2.
"""

import base64
import json
import mimetypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from chalicelib.errors import AskOnceError, ConfigurationError
from chalicelib.settings import default_path

Function = TypeVar("Function", bound=Callable[..., Any])


def plain_errors(function: Function) -> Function:
    """No traceback for what a user can cause: a line on stderr for each fault, and exit code 2."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AskOnceError as error:
            for line in str(error).splitlines() or [type(error).__name__]:
                click.echo(line, err=True)
            sys.exit(2)

    return cast(Function, guarded)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One question, one ticket, whichever channel it comes from."""


folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".askonce"),
    show_default=True,
    help="Where the local world keeps its state.",
)


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=default_path,
    show_default="askonce.toml",
    help="The configuration; also $ASKONCE_CONFIG.",
)


# The local world


@main.command()
@click.option(
    "--port", default=8700, show_default=True, help="Of the page; the API takes the next."
)
@click.option("--free-ports", is_flag=True, help="Take free ports instead.")
@click.option("--keep", is_flag=True, help="Go on from the state of the last run.")
@click.option("--skip-broken", is_flag=True, help="Start without the inboxes that have faults.")
@click.option("--quiet", is_flag=True, help="Do not print the log.")
@config_option
@folder_option
@plain_errors
def dev(  # click's flags
    port: int,
    free_ports: bool,
    keep: bool,
    skip_broken: bool,
    quiet: bool,
    config: Path,
    folder: Path,
) -> None:
    """Run all of it on this machine: embedded AWS, fake providers, a helpdesk, a page."""
    from chalicelib import log, settings
    from infra.local.world import World

    started = time.monotonic()
    log.quiet = True
    document = _without_faults(settings.read(config), config.name, skip=skip_broken)
    world = World(folder, 0 if free_ports else port, keep=keep, document=document)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        address = world.start()
        seconds = time.monotonic() - started
        click.echo(f"AskOnce runs here ({seconds:.1f} s to start). Stop it with Ctrl-C.\n")
        width = max(10, *map(len, [*document.inboxes, *document.helpdesks]))
        click.echo(
            f"  {'page':<{width}} {address.page}/   tickets, customers' phones, what happens"
        )
        for name in document.inboxes:
            click.echo(f"  {name:<{width}} {address.api}/webhooks/{name}")
        for name in document.helpdesks:
            click.echo(f"  {name:<{width}} {address.api}/replies/{name}")
        click.echo('\nTry: askonce send wechat --from li "你好，龙井茶怎么保存？"')
        log.quiet = quiet
        stopping.wait()
        log.quiet = True
        click.echo("\nStopping.")
    finally:
        world.stop()


def _without_faults(document: Any, name: str, *, skip: bool) -> Any:
    """The document if it has no faults; with `skip`, without the inboxes that have one."""
    from infra.local.localise import faults

    found = [f"{name}: {fault}" for fault in faults(document)]
    if not found:
        return document
    if not skip:
        found.append("Mend these, or start without their inboxes: askonce dev --skip-broken")
        raise ConfigurationError("\n".join(found))
    for fault in found:
        click.echo(fault, err=True)
    inboxes = {
        name: settings
        for name, settings in document.inboxes.items()
        if not any(f'inbox "{name}":' in fault for fault in found)
    }
    return document.model_copy(update={"inboxes": inboxes})


def _attach(folder: Path) -> Any:
    """The address of the running world, whose environment this process now shares."""
    from infra.local.world import Address

    address = Address.read(folder)
    os.environ.update(address.environment)
    return address


def _pipeline(folder: Path) -> Any:
    """The pipeline of the running world; else that of the deployment that the environment names."""
    from chalicelib import log

    log.quiet = True
    if (folder / "world.json").exists():
        _attach(folder)
    elif "ASKONCE_PREFIX" not in os.environ:
        raise ConfigurationError(
            f"no world runs in {folder}, and ASKONCE_PREFIX names no deployment: "
            "start `askonce dev`, or set ASKONCE_PREFIX and your AWS credentials"
        )
    import app

    return app.pipeline()


@main.command()
@click.argument("channel", metavar="CHANNEL|INBOX")
@click.argument("text")
@click.option("--from", "person", default="li", show_default=True, help="li, mei or mallory.")
@click.option("--subject", default="", help="Email only; beginning with Re: it answers.")
@click.option("--attach", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@folder_option
@plain_errors
def send(
    channel: str, text: str, person: str, subject: str, attach: Path | None, folder: Path
) -> None:
    """Write as a customer: a webhook as the provider would send it.

    CHANNEL is wechat, email, sms or webchat, and takes its first inbox; or name an inbox.
    """
    from infra.local.client import Client

    client = Client(_attach(folder))
    answer = client.say(
        person, channel, text, subject=subject, file=file_of(attach) if attach else None
    )
    click.echo(f"{channel} from {person}: HTTP {answer['status']} {answer['answer']}".rstrip())
    if answer["status"] >= 400:
        sys.exit(1)


def file_of(path: Path) -> dict[str, str]:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    content = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.name, "media_type": media_type, "content": content}


_COLOURS = {
    "accepted": "cyan",
    "resolved": "magenta",
    "forwarded": "green",
    "delivered": "green",
    "refused": "red",
    "undelivered": "red",
    "quarantined": "red",
    "retrying": "yellow",
    "stuck": "yellow",
}


@main.command()
@folder_option
@plain_errors
def tail(folder: Path) -> None:
    """What happens in the running world, as it happens."""
    from infra.local.client import Client

    for line in Client(_attach(folder)).events():
        at, name = str(line.pop("at"))[11:23], str(line.pop("event"))
        rest = "  ".join(f"{k}={v}" for k, v in line.items())
        click.echo(f"{at}  {click.style(f'{name:<14}', fg=_COLOURS.get(name))} {rest}")


@main.command()
@click.option("--own-world", is_flag=True, help="In a world of its own, on free ports.")
@folder_option
@plain_errors
def demo(own_world: bool, folder: Path) -> None:  # click's flag
    """Play the story: asked on WeChat, answered, asked again by email, one ticket."""
    from infra.local.story import play, play_in_own_world

    sys.exit(0 if (play_in_own_world() if own_world else play(_attach(folder))) else 1)


# Configuration and schema


@main.command()
@config_option
@plain_errors
def check(config: Path) -> None:
    """Look for faults in the configuration: a line for each, exit code 2."""
    from chalicelib import settings
    from connectors.registry import CONNECTORS, HELPDESKS
    from infra.local.localise import NoTokens

    document = settings.read(config)
    faults = settings.Deployment(document, CONNECTORS, HELPDESKS, NoTokens()).faults()
    if faults:
        raise ConfigurationError("\n".join(f"{config.name}: {fault}" for fault in faults))
    click.echo(f"{config.name}: {len(document.inboxes)} inboxes, no faults")


@main.command()
def schema() -> None:
    """Print the JSON Schema of messages, version 1."""
    from chalicelib.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@main.command()
@click.option("--markdown", is_flag=True, help="As the table in docs/connectors.md.")
def connectors(markdown: bool) -> None:  # click's flag
    """What every connector can do: kinds in and out, window, receipts, evidence."""
    from infra import matrix

    show = matrix.as_markdown if markdown else matrix.as_text
    click.echo(show(matrix.rows()), nl=False)


# Contacts


@main.group()
def contacts() -> None:
    """Who is who: show, link and unlink addresses."""


def _contacts(pipeline: Any) -> Any:
    from chalicelib.contacts import Contacts

    return Contacts(pipeline.store, pipeline.clock)


@contacts.command("show")
@click.argument("address")
@folder_option
@plain_errors
def contacts_show(address: str, folder: Path) -> None:
    """The person behind an address: other addresses, why, and what was asked."""
    pipeline = _pipeline(folder)
    contact, links, conversations = _contacts(pipeline).show(address)
    click.echo(f"contact {contact.id}")
    for link in links:
        click.echo(f"  {link.address}  {link.level.value}, by {link.source}")
        choice = pipeline.store.opt_out(link.address)
        if choice and choice.noun.choice == "out":
            click.echo(f"      opted out {choice.noun.at:%Y-%m-%d %H:%M:%S}: nothing is sent here")
        for event in link.history:
            click.echo(f"      {event.at:%Y-%m-%d %H:%M:%S}  {event.source}, {event.by}")
    for claimed in contact.suggestions:
        click.echo(f"  {claimed}  only claimed: link it if you know that it is the same person")
    for c in conversations:
        ticket = c.ticket.id if c.ticket else "no ticket yet"
        click.echo(f"  {c.reference}  {ticket}  {c.state.value}  asked {c.asked_times}x")


@contacts.command("link")
@click.argument("address")
@click.argument("to")
@click.option("--because", default="operator", show_default=True, help="Kept as the evidence.")
@folder_option
@plain_errors
def contacts_link(address: str, to: str, because: str, folder: Path) -> None:
    """Say that ADDRESS is the same person as TO."""
    for each in (address, to):
        _demand_address(each)
    link = _contacts(_pipeline(folder)).link(address, to, source=because, by=_user())
    click.echo(f"{link.address} belongs to contact {link.contact_id}")


@contacts.command("unlink")
@click.argument("address")
@folder_option
@plain_errors
def contacts_unlink(address: str, folder: Path) -> None:
    """Give ADDRESS a contact of its own again, with the questions it asked."""
    link = _contacts(_pipeline(folder)).unlink(address, by=_user())
    click.echo(f"{link.address} belongs to contact {link.contact_id}")


def _demand_address(address: str) -> None:
    kind, _, rest = address.partition(":")
    if not rest or not kind.replace("_", "").isalpha():
        raise ConfigurationError(
            f"{address} is no address: write email:li@example.com, phone:+8613800138000, "
            "wechat:<appid>:<openid>, webchat:<visitor> or external:<your customer id>"
        )


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "operator"


# Quarantine


@main.group()
def quarantine() -> None:
    """Requests that were authentic but could not be read."""


@quarantine.command("list")
@folder_option
@plain_errors
def quarantine_list(folder: Path) -> None:
    """All of them, oldest first."""
    for held in _pipeline(folder).store.all_quarantined():
        click.echo(f"{held.id}  {held.received_at:%Y-%m-%d %H:%M}  {held.inbox}  {held.reason}")


@quarantine.command("show")
@click.argument("quarantine_id")
@folder_option
@plain_errors
def quarantine_show(quarantine_id: str, folder: Path) -> None:
    """One of them, with its body. It holds a customer's words."""
    held = _pipeline(folder).store.quarantined(quarantine_id)
    if held is None:
        raise ConfigurationError(f"nothing in quarantine under {quarantine_id}")
    click.echo(f"{held.method} to inbox {held.inbox}, {held.received_at:%Y-%m-%d %H:%M:%S} UTC")
    click.echo(f"unreadable because {held.reason}\n")
    click.echo((held.body or b"").decode("utf-8", "backslashreplace"))


@quarantine.command("retry")
@click.argument("quarantine_id")
@folder_option
@plain_errors
def quarantine_retry(quarantine_id: str, folder: Path) -> None:
    """Read it with today's code; on success it goes its way and leaves the quarantine."""
    count = _pipeline(folder).retry_quarantined(quarantine_id)
    click.echo(f"read after all: {count} message(s)")


if __name__ == "__main__":
    main()

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

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
            _stop(str(error) or type(error).__name__)
        except Exception as error:  # those of the SDK, which is not imported to name them
            from infra.deployment import in_words

            words = in_words(error)
            if words is None:
                raise
            _stop(words)

    return cast(Function, guarded)


def _stop(why: str) -> NoReturn:
    for line in why.splitlines():
        click.echo(line, err=True)
    sys.exit(2)


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


helpdesk_option = click.option(
    "--helpdesk",
    type=click.Choice(["sandbox", "request_tracker"]),
    default="sandbox",
    show_default=True,
    help="What stands in for yours: the page's own, or a real Request Tracker.",
)


@main.command()
@click.option(
    "--port", default=8700, show_default=True, help="Of the page; the API takes the next."
)
@click.option("--free-ports", is_flag=True, help="Take free ports instead.")
@click.option("--keep", is_flag=True, help="Go on from the state of the last run.")
@click.option("--skip-broken", is_flag=True, help="Start without the inboxes that have faults.")
@click.option("--quiet", is_flag=True, help="Do not print the log.")
@helpdesk_option
@config_option
@folder_option
@plain_errors
def dev(  # noqa: PLR0913, PLR0917  # click's flags
    port: int,
    free_ports: bool,
    keep: bool,
    skip_broken: bool,
    quiet: bool,
    helpdesk: str,
    config: Path,
    folder: Path,
) -> None:
    """Run all of it on this machine: embedded AWS, fake providers, a helpdesk, a page."""
    from chalicelib import log, settings
    from infra.local.world import World

    started = time.monotonic()
    log.quiet = True
    document = _without_faults(settings.read(config), config.name, skip=skip_broken)
    world = World(
        folder, 0 if free_ports else port, keep=keep, document=document, helpdesk=helpdesk
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        address = world.start()
        _welcome(address, document, world.more, time.monotonic() - started)
        log.quiet = quiet
        # A signal may reach any thread, and then wakes no other that waits for ever.
        while not stopping.wait(0.2):
            pass
        log.quiet = True
        click.echo("\nStopping.")
    finally:
        world.stop()


def _welcome(address: Any, document: Any, more: list[str], seconds: float) -> None:
    """Where everything is. Whoever starts a world waits for the last line."""
    click.echo(f"AskOnce runs here ({seconds:.1f} s to start). Stop it with Ctrl-C.\n")
    width = max(10, *map(len, [*document.inboxes, *document.helpdesks]))
    click.echo(f"  {'page':<{width}} {address.page}/   tickets, customers' phones, what happens")
    for name in document.inboxes:
        click.echo(f"  {name:<{width}} {address.api}/webhooks/{name}")
    for name in document.helpdesks:
        click.echo(f"  {name:<{width}} {address.api}/replies/{name}")
    for line in more:
        click.echo(line)
    click.echo('\nTry: askonce send wechat --from li "你好，龙井茶怎么保存？"')


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


def _pipeline(folder: Path, prefix: str | None = None) -> Any:
    """The pipeline of the running world; else that of the deployment that is named."""
    from chalicelib import log
    from infra import deployment

    log.quiet = True
    if not prefix and (folder / "world.json").exists():
        _attach(folder)
    elif not prefix and deployment.PREFIX_ENVIRONMENT not in os.environ:
        raise ConfigurationError(
            f"no world runs in {folder}, and ASKONCE_PREFIX names no deployment: "
            "start `askonce dev`, or set ASKONCE_PREFIX and your AWS credentials"
        )
    else:
        deployment.attach(prefix)
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
@helpdesk_option
@folder_option
@plain_errors
def demo(own_world: bool, helpdesk: str, folder: Path) -> None:  # click's flag
    """Play the story: asked on WeChat, answered, asked again by email, one ticket."""
    from infra.local.story import play, play_in_own_world

    if not own_world and helpdesk != "sandbox":
        raise ConfigurationError("the running world has its helpdesk: add --own-world")
    good = play_in_own_world(helpdesk) if own_world else play(_attach(folder), folder)
    sys.exit(0 if good else 1)


# Configuration and schema


@main.command()
@click.option("--stage", help="Of .chalice/config.json: look at its deployment, too.")
@click.option("--api-url", help="Where the stage's API is, where no stack can be asked.")
@click.option("--stack", help="Of CloudFormation, that knows where its API is.")
@click.option("--prefix", help="Of the deployment; also $ASKONCE_PREFIX; else askonce.")
@config_option
@plain_errors
def check(
    stage: str | None, api_url: str | None, stack: str | None, prefix: str | None, config: Path
) -> None:  # the flags of one command
    """Look for faults in the configuration: a line for each, exit code 2.

    With --stage also: whether secrets can be read, providers be reached, and table, queues and
    bucket are there; and for each inbox what to enter in its provider's console. Shows no secret.
    """
    if stage:
        _check_stage(stage, config, prefix, api_url, stack)
        return
    from chalicelib import settings
    from connectors.registry import CONNECTORS, HELPDESKS
    from infra.local.localise import NoTokens

    document = settings.read(config)
    faults = settings.Deployment(document, CONNECTORS, HELPDESKS, NoTokens()).faults()
    if faults:
        raise ConfigurationError("\n".join(f"{config.name}: {fault}" for fault in faults))
    click.echo(f"{config.name}: {len(document.inboxes)} inboxes, no faults")


def _check_stage(
    name: str, config: Path, prefix: str | None, api_url: str | None, stack: str | None
) -> None:
    from chalicelib import settings
    from infra import readiness, stages

    [stage] = stages.read(stages.CONFIG, [name])
    ready = readiness.Readiness(
        stage,
        settings.read(config),
        readiness.prefix_of(prefix),
        api_url or (readiness.api_of(stack) if stack else None),
    )
    click.echo(f"stage {name}: {ready.stage}, deployment {ready.prefix}")
    faults = 0
    for finding in ready.findings():
        faults += finding.fault is not None
        click.echo(f"  {finding}")
    for line in ready.addresses():
        click.echo(line)
    click.echo(f"{faults or 'no'} faults")
    if faults:
        sys.exit(2)


@main.command()
@click.option(
    "--stage", "stages", multiple=True, help="One of .chalice/config.json's; all, if none."
)
@config_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="build/out")
@click.option("--architecture", type=click.Choice(["x86_64", "arm64"]), help="Of these stages.")
@click.option("--code", metavar="s3://BUCKET/KEY", help="Where the zip will lie, for Terraform.")
@plain_errors
def package(
    stages: tuple[str, ...], config: Path, out: Path, architecture: str | None, code: str | None
) -> None:
    """Package stages for AWS: one zip, and a CloudFormation template for each stage."""
    from infra import package

    asked = package.Asked(stages, out, config.resolve(), architecture, code)
    found = [f"{fault}" for fault in package.package(asked)]
    if found:
        raise ConfigurationError("\n".join(found))
    click.echo("no faults")


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
    """Who is who: show, link, unlink, prove, import, erase."""


def _contacts(pipeline: Any) -> Any:
    from chalicelib.contacts import Contacts

    return Contacts(pipeline.store, pipeline.clock, pipeline.deployment.document.policy.contacts)


def _codes(pipeline: Any) -> Any:
    from chalicelib.codes import Codes

    return Codes(pipeline.store, pipeline.deployment, pipeline.clock, pipeline.report)


@contacts.command("show")
@click.argument("address")
@folder_option
@plain_errors
def contacts_show(address: str, folder: Path) -> None:
    """The person behind an address: other addresses, why, until when, and what was asked."""
    from infra import people

    for line in people.shown(_pipeline(folder), address):
        click.echo(line)


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
    from chalicelib.contacts import decided

    found = _contacts(_pipeline(folder))
    link = decided(lambda: found.link(address, to, source=because, by=_user()))
    click.echo(f"{link.address} belongs to contact {link.contact_id}")


@contacts.command("unlink")
@click.argument("address")
@folder_option
@plain_errors
def contacts_unlink(address: str, folder: Path) -> None:
    """Give ADDRESS a contact of its own again, with the questions it asked."""
    from chalicelib.contacts import decided

    found = _contacts(_pipeline(folder))
    link = decided(lambda: found.unlink(address, by=_user()))
    click.echo(f"{link.address} belongs to contact {link.contact_id}")


@contacts.command("challenge")
@click.argument("claimed")
@click.option("--for", "answers_from", required=True, metavar="ADDRESS",
              help="From where the code must come back.")  # fmt: skip
@folder_option
@plain_errors
def contacts_challenge(claimed: str, answers_from: str, folder: Path) -> None:
    """Send a one-time code to CLAIMED; both are linked when it comes back from ADDRESS."""
    for each in (claimed, answers_from):
        _demand_address(each)
    _codes(_pipeline(folder)).challenge(claimed, answers_from, by=_user())
    click.echo(
        f"A code is on its way to {claimed}. Sent back from {answers_from} within 10 minutes, it "
        f"links both; see how it goes with: askonce contacts show {answers_from}"
    )


@contacts.command("import")
@click.argument("path", metavar="CUSTOMERS.CSV", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--country", help="Of phone numbers without +: CN, DE, US ...")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and write nothing.")
@folder_option
@plain_errors
def contacts_import(path: Path, country: str | None, dry_run: bool, folder: Path) -> None:  # flag
    """Link addresses by your own customer list; exit code 2 if any was refused. Safe to repeat.

    Columns: customer_id, email, phone, wechat (<appid>:<openid>), wechat_union, webchat.
    """
    from chalicelib.contacts import Contacts
    from chalicelib.customers import Customers
    from infra import customers

    if country and country.upper() not in customers.COUNTRIES:
        known = ", ".join(customers.COUNTRIES)
        raise ConfigurationError(f"--country {country} is unknown: write +, or one of {known}")
    found = customers.rows(path)
    pipeline = _pipeline(folder)
    store = pipeline.store.over(customers.Rehearsal) if dry_run else pipeline.store
    policy = pipeline.deployment.document.policy.contacts
    known_ones = Customers(Contacts(store, pipeline.clock, policy), pipeline.clock)
    with click.progressbar(length=len(found), label="Customers", file=sys.stderr) as bar:
        summary = customers.take(
            known_ones,
            found,
            country=country.upper() if country else None,
            by=_user(),
            progress=lambda _: bar.update(1),
        )
    for line in summary.refused:
        click.echo(line, err=True)
    counts = summary.counts
    click.echo(
        f"{'Would be: ' if dry_run else ''}{counts['linked']} linked, {counts['already']} already "
        f"there, {counts['refused']} refused; {len(summary.customers)} customers"
    )
    if summary.refused:
        sys.exit(2)


@contacts.command("erase")
@click.argument("who", metavar="ADDRESS|CONTACT")
@click.option("--yes", is_flag=True, help="Do it: it cannot be undone.")
@folder_option
@plain_errors
def contacts_erase(who: str, yes: bool, folder: Path) -> None:  # flag
    """Forget a person: messages, conversations, files, links. Opt-outs are kept. Safe to repeat."""
    from chalicelib.erasing import Eraser
    from infra import people

    if ":" in who:
        _demand_address(who)
    pipeline = _pipeline(folder)
    if not yes:
        raise ConfigurationError(f"this cannot be undone: askonce contacts erase {who} --yes")
    click.echo("Erasing ...", err=True)
    eraser = Eraser(pipeline.store, pipeline.deployment, pipeline.clock, pipeline.report)
    for line in people.erased(eraser.erase(who)):
        click.echo(line)


def _demand_address(address: str) -> None:
    kind, _, rest = address.partition(":")
    if not rest or not kind.replace("_", "").isalpha():
        raise ConfigurationError(
            f"{address} is no address: write email:li@example.com, phone:+8613800138000, "
            "wechat:<appid>:<openid>, webchat:<visitor> or external:<your customer id>"
        )


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "operator"


# Repeats


@main.group()
def repeats() -> None:
    """Questions asked again: what was recognised, why, and how to take it back."""


@repeats.command("list")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 400))
@click.option(
    "--outcome",
    type=click.Choice(["repeat", "related", "would_be", "undone"]),
    help="Only these; would_be is what observe mode would have joined.",
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON each, without any words.")
@folder_option
@plain_errors
def repeats_list(days: int, outcome: str | None, as_json: bool, folder: Path) -> None:  # flags
    """What was recognised lately, newest first."""
    from infra import verdicts

    for line in verdicts.listed(_pipeline(folder), days, outcome, as_json=as_json):
        click.echo(line)


@repeats.command("show")
@click.argument("message")
@folder_option
@plain_errors
def repeats_show(message: str, folder: Path) -> None:
    """One message and what was decided about it. MESSAGE is its id, or a reference (Q-...).

    A reference means the latest repeat of that conversation. Shows a customer's words.
    """
    from infra import verdicts

    for line in verdicts.shown(_pipeline(folder), message):
        click.echo(line)


@repeats.command("explain")
@click.argument("message")
@folder_option
@plain_errors
def repeats_explain(message: str, folder: Path) -> None:
    """Everything that went into the decision, and what the scorer says of it now.

    MESSAGE is a message's id, or a reference (Q-...). Shows a customer's words.
    """
    from infra import verdicts

    for line in verdicts.explained(_pipeline(folder), message):
        click.echo(line)


@repeats.command("undo")
@click.argument("message")
@click.option("--yes", is_flag=True, help="Do not ask.")
@folder_option
@plain_errors
def repeats_undo(message: str, yes: bool, folder: Path) -> None:  # click's flag
    """It was not the same question: give it a conversation and a ticket of its own.

    The lines that the customer sent right after it go along. Nearly the same words never join the
    earlier question again. What the customer was told is not untold.
    """
    from infra import verdicts

    pipeline = _pipeline(folder)
    found = verdicts.find(pipeline, message)
    for line in verdicts.shown(pipeline, found.id):
        click.echo(line)
    if not yes and not click.confirm("\nIs this another question?"):
        return
    click.echo(verdicts.undone(pipeline, found.id, _user()))


_threshold = click.FloatRange(0, 1)


@repeats.command("report")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 400))
@click.option("--threshold", type=_threshold, help="To join; in the place of what is configured.")
@click.option("--answer-threshold", type=_threshold, help="To answer; likewise.")
@click.option("--shipped", is_flag=True, help="By the shipped scorer, whatever is configured.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html",
              show_default=True, help="The page; only you may read it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, write no page.")
@folder_option
@plain_errors
def repeats_report(  # click's flags
    days: int,
    threshold: float | None,
    answer_threshold: float | None,
    shipped: bool,
    out: Path,
    as_json: bool,
    folder: Path,
) -> None:
    """What would have been linked, from this deployment's own history, as a page to judge it by.

    Replays what customers asked, in any mode, and writes nothing to the table. Shows customers'
    words.
    """
    from infra import replay, report

    asked = report.Asked(
        days=days, join_threshold=threshold, answer_threshold=answer_threshold, shipped=shipped
    )
    pipeline = _pipeline(folder)
    with _counting("Reading the table") as count:
        history = replay.read(pipeline.store, report.since(pipeline, asked), count)
    with click.progressbar(length=len(history.contacts), label="Comparing", file=sys.stderr) as bar:
        made = report.made(pipeline, asked, history, bar.update)
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False, indent=2))
        return
    report.write(out, report.page(made))
    click.echo(
        f"{out}: {made['questions']} questions of {made['contacts']} customers, "
        f"{made['joined']} would join, {made['answered']} of these would be answered.\n"
        "It holds customers' words: open it in a browser, judge, and delete it."
    )


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how many items there were so far, to whoever looks."""
    read, watched = 0, sys.stderr.isatty()

    def count(more: int) -> None:
        nonlocal read
        read += more
        if watched:
            click.echo(f"\r{what}: {read:,} items", err=True, nl=False)

    yield count
    if watched:
        click.echo(err=True)


@repeats.command("trending")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 30))
@click.option("--json", "as_json", is_flag=True, help="A line of JSON each, by hour and by day.")
@folder_option
@plain_errors
def repeats_trending(days: int, as_json: bool, folder: Path) -> None:  # click's flag
    """What many customers asked: how many, lately, whether it is answered and in the FAQ.

    Shows a customer's words, without numbers and addresses. A customer counts once a day.
    """
    from infra import trends

    trends.echo(trends.trending(_pipeline(folder), days, as_json=as_json))


# FAQ


@main.group()
def faq() -> None:
    """Questions that anybody may ask, and the owner's answers to them."""


@faq.command("check")
@config_option
@plain_errors
def faq_check(config: Path) -> None:
    """What is in the FAQ's file; a line for each fault, exit code 2."""
    from chalicelib import settings
    from infra import trends

    trends.echo(trends.checked(trends.file_of(settings.read(config), config)))


@faq.command("import")
@click.argument("table", metavar="QUESTIONS.CSV", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Say what would happen, and write nothing.")
@config_option
@plain_errors
def faq_import(table: Path, dry_run: bool, config: Path) -> None:  # click's flag
    """Add a table's entries to the FAQ's file: all of them, or none if one has a fault.

    Columns: id, question, answer; and language (zh, en), variants (a | between them), approved
    (yes, no). Two rows with one id are one entry in two languages.
    """
    from chalicelib import settings
    from infra import trends

    path = trends.file_of(settings.read(config), config)
    trends.echo(trends.imported(table, path, dry_run=dry_run))


@faq.command("candidates")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 30))
@click.option("--customers", default=3, show_default=True, type=click.IntRange(3), help="At least.")
@folder_option
@plain_errors
def faq_candidates(days: int, customers: int, folder: Path) -> None:
    """What many asked and agents answered, as entries to paste into the FAQ's file.

    None is approved: each answer was written to one customer, and you have to read it first.
    """
    from infra import trends

    trends.echo(trends.candidates(_pipeline(folder), days, customers))


# Quarantine


@main.group(invoke_without_command=True)
@click.option("--markdown", is_flag=True, help="As the table in docs/helpdesks/README.md.")
@click.pass_context
def helpdesks(context: click.Context, markdown: bool) -> None:
    """What each helpdesk can do; how those configured are doing; moving to another one."""
    if context.invoked_subcommand is None:
        from infra import helpdesks as found

        click.echo(found.as_markdown() if markdown else found.as_text(), nl=False)


@helpdesks.command("status")
@folder_option
@plain_errors
def helpdesks_status(folder: Path) -> None:
    """How each configured helpdesk is doing: a line each."""
    from infra import helpdesks as found

    for line in found.states(_pipeline(folder)):
        click.echo(line)


@helpdesks.command("resume")
@click.argument("name")
@folder_option
@plain_errors
def helpdesks_resume(name: str, folder: Path) -> None:
    """Call a helpdesk again that is let be: what refused or failed is mended."""
    from infra import helpdesks as found

    click.echo(found.resume(_pipeline(folder), name))


@helpdesks.command("move")
@click.argument("source")
@click.argument("target")
@click.option("--inbox", help="Only what came by this inbox.")
@click.option("--dry-run", is_flag=True, help="Say what would move, and move nothing.")
@folder_option
@plain_errors
def helpdesks_move(  # the parts of one command
    source: str, target: str, inbox: str | None, dry_run: bool, folder: Path
) -> None:
    """Move open conversations from helpdesk SOURCE to TARGET, history and all. Safe to repeat.

    Say first in askonce.toml where new ones go: helpdesk = "TARGET".
    """
    from infra import helpdesks as found

    summary = found.move(_pipeline(folder), source, target, inbox, click.echo, dry_run=dry_run)
    click.echo(f"{summary.moved} {'would move' if dry_run else 'moved'}, {summary.failed} did not")
    if summary.failed:
        sys.exit(2)


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


# When something got stuck


prefix_option = click.option(
    "--prefix", help="Of the deployment; also $ASKONCE_PREFIX. Else the world of --folder."
)


@main.command()
@click.argument(
    "what",
    type=click.Choice(["forward", "deliver", "stream", "inbound", "rejected"]),
    nargs=-1,
)
@click.option("--dry-run", is_flag=True, help="Tell what there is, and change nothing.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Of each.")
@prefix_option
@folder_option
@plain_errors
def redrive(
    what: tuple[str, ...], dry_run: bool, limit: int, prefix: str | None, folder: Path
) -> None:  # click's flag
    """Bring dead letters back to life, each once, in the order of their conversation.

    WHAT is forward, deliver, stream or inbound: whose dead letters; all of them, if you name none.
    `rejected` is what a helpdesk would not take: mend why, then have it forwarded again. A letter
    that fails stays. Safe to repeat.
    """
    from infra import operating

    redriver = _redriver(_pipeline(folder, prefix))
    failed = 0
    for kind in what or tuple(operating.DEAD_LETTERS):
        line, more = operating.redriven(redriver, kind, limit, dry_run=dry_run)
        failed += more
        click.echo(line)
    if failed:
        sys.exit(2)


def _redriver(pipeline: Any) -> Any:
    import app
    from infra import deployment
    from infra.operating import Redriver

    def take(event: Any) -> None:
        app.on_sns_message(event, None)

    return Redriver(pipeline, deployment.named(), take, click.echo)


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic only in some versions of click
    """A time in ISO 8601; UTC, where it names no other zone."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value} is no time: write 2026-11-28T09:30, which is UTC, or add +08:00")
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@main.command()
@click.option("--from", "since", type=_Moment(), required=True, help="This moment, and later.")
@click.option("--to", "until", type=_Moment(), required=True, help="Earlier than that.")
@click.option("--inbox", required=True, help="By which they came.")
@click.option("--dry-run", is_flag=True, help="Count them, and change nothing.")
@prefix_option
@folder_option
@plain_errors
def replay(  # the parts of one command
    since: datetime,
    until: datetime,
    inbox: str,
    dry_run: bool,
    prefix: str | None,
    folder: Path,
) -> None:
    """Have stored messages forwarded once more: the helpdesk, restored or emptied, has lost them.

    What it still has is not added twice. Reads the whole table. Safe to repeat.
    """
    from infra import operating

    if since >= until:
        raise ConfigurationError("--from must be earlier than --to")
    span = operating.Span(inbox, since, until)
    with _counting("Forwarding again") as count:
        done = operating.replay(
            _pipeline(folder, prefix), span, lambda _: count(1), dry_run=dry_run
        )
    click.echo(done.words(dry_run=dry_run))


@main.command()
@click.argument("correlation_id", metavar="ID")
@click.option("--since", default="1d", show_default=True, help="How far back: 30m, 2h, 1d.")
@prefix_option
@folder_option
@plain_errors
def logs(correlation_id: str, since: str, prefix: str | None, folder: Path) -> None:
    """What was logged of a message, from its webhook to its ticket, a line each, in order.

    ID is that of a message, or of a request, a conversation, a ticket, an errand.
    """
    from infra import tracing

    wanted, span = tracing.demand_id(correlation_id), tracing.span_of(since)
    if not prefix and (folder / "world.json").exists():
        from infra.local.client import Client

        found: Any = Client(_attach(folder)).log()
    else:
        from infra import deployment

        at = datetime.now(UTC) - span
        found = tracing.of_deployment(deployment.named(prefix), wanted, at)
    lines = tracing.about(found, wanted)
    if not lines:
        raise tracing.nothing_of(wanted, since)
    for line in lines:
        click.echo(tracing.shown(line))


if __name__ == "__main__":
    main()

"""`askonce redrive|replay|logs` over a deployment on moto, and in words when it is not there."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError
from click.testing import CliRunner, Result

import app
from chalicelib import aws
from chalicelib.errors import ConfigurationError
from infra import cli, deployment, tracing
from tests.fakes import World, world

Run = Callable[..., Result]
QUESTION = "How do I keep green tea fresh?"


@pytest.fixture
def run(tmp_path: Path, moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command line, with no world in its folder and the deployment of moto."""
    for name in (deployment.PREFIX_ENVIRONMENT, "ASKONCE_BUCKET"):
        monkeypatch.setenv(name, "to be put back afterwards")
        monkeypatch.delenv(name)
    app.pipeline.cache_clear()
    app.queue.cache_clear()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli.main, [*arguments, "--folder", str(tmp_path)])

    yield run
    app.pipeline.cache_clear()
    app.queue.cache_clear()


@pytest.fixture
def w(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of fakes in the place of the deployment's table and queues."""
    w = world()
    monkeypatch.setattr(cli, "_pipeline", lambda *_: w.pipeline)
    monkeypatch.setenv(deployment.PREFIX_ENVIRONMENT, "askonce")
    return w


def put_dead(body: Any) -> None:
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName="askonce-forward-dead.fifo")["QueueUrl"]
    sqs.send_message(
        QueueUrl=url,
        MessageBody=json.dumps(body),
        MessageGroupId="g",
        MessageDeduplicationId="d",
    )


# Redrive


def test_all_dead_letters_are_driven_where_none_are_named(run: Run, w: World) -> None:
    w.say("sms", "li", QUESTION)
    put_dead({"message_id": w.messages()[0].message.id})
    told = run("redrive", "--prefix", "askonce")
    assert told.output.splitlines() == [
        "forward: 1 driven again, 0 needed nothing, 0 stay",
        *(f"{k}: 0 driven again, 0 needed nothing, 0 stay" for k in ("deliver", "stream")),
        "inbound: 0 driven again, 0 needed nothing, 0 stay",
    ]
    assert told.exit_code == 0


def test_a_letter_that_stays_is_an_exit_code(run: Run, w: World) -> None:
    put_dead({"nothing": "that we know"})
    told = run("redrive", "forward", "--prefix", "askonce")
    assert told.exit_code == 2
    assert "stays, KeyError" in told.output


def test_a_dry_run_of_the_redrive_names_the_message(run: Run, w: World) -> None:
    w.say("sms", "li", QUESTION)
    name = w.messages()[0].message.id
    put_dead({"message_id": name})
    told = run("redrive", "forward", "--dry-run", "--prefix", "askonce").output.splitlines()
    assert told[0].endswith(f": message {name}, accepted")
    assert told[1] == "forward: 1 dead letters"


def test_a_deployment_on_aws_is_driven_by_its_own_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "askonce.toml"
    config.write_text(
        'public_url = "https://askonce.example"\nhelpdesk = "desk"\n'
        '[helpdesks.desk]\nconnector = "webhook"\nurl = "https://d"\nsecret = "env:DESK"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("ASKONCE_CONFIG", str(config))
    put_dead({"message_id": "m-that-was-erased"})
    told = run("redrive", "forward", "--prefix", "askonce")
    assert told.output == "forward: 0 driven again, 1 needed nothing, 0 stay\n"


def test_rejected_messages_are_listed_then_driven(run: Run, w: World) -> None:
    from chalicelib.errors import RejectedError

    w.desk.failures.append(RejectedError("HTTP 422 from desk.example"))
    w.say("sms", "li", QUESTION)
    w.settle()
    name = w.messages()[0].message.id
    listed = run("redrive", "rejected", "--dry-run").output.splitlines()
    assert listed[0].startswith(name)
    assert listed[1] == "rejected: 1 messages"
    assert run("redrive", "rejected").output.splitlines()[1] == "rejected: 1 driven again"
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]


# Replay


def test_a_replay_says_what_became_of_it(run: Run, w: World) -> None:
    w.say("sms", "li", QUESTION)
    w.settle()
    times = ("--from", "2026-03-01T08:00", "--to", "2026-03-01T17:30+08:00", "--inbox", "sms")
    rest = "0 are on their way, 0 concern no ticket, 0 have a ticket that was merged or moved\n"
    dry = run("replay", *times, "--dry-run").output
    assert dry == f"1 found: 1 would be forwarded again, {rest}"
    assert run("replay", *times).output == f"1 found: 1 are forwarded again, {rest}"


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (("--from", "yesterday", "--to", "2026-03-01"), "yesterday is no time: write 2026-"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), "--from must be earlier than --to"),
    ],
)
def test_a_wrong_time_is_said_to_be_wrong(
    times: tuple[str, ...], says: str, run: Run, w: World
) -> None:
    told = run("replay", *times, "--inbox", "sms")
    assert (told.exit_code, says in told.output) == (2, True)


# Logs


def write_logs(group: str, *lines: Any) -> None:
    logs = aws.client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now = int(time.time() * 1000)
    events = [
        {"timestamp": now, "message": li if isinstance(li, str) else json.dumps(li)} for li in lines
    ]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)


def line(at: str, event: str, **fields: Any) -> dict[str, Any]:
    return {"at": f"2026-03-01T09:00:{at}+00:00", "event": event, **fields}


@pytest.fixture
def life(run: Run) -> Run:
    """The lines of two messages in the logs of three functions, and of another deployment."""
    aws.client("logs")
    embedded = {"_aws": {"Timestamp": 1}, "Accepted": 1, "Prefix": "shop"}
    write_logs(
        "/askonce/shop/api_handler",
        line("01.000", "accepted", message="m1", request="r-1", inbox="sms", **embedded),
        line("02.000", "accepted", message="m2", request="r-2", inbox="sms"),
        "START RequestId: m1",
    )
    write_logs(
        "/askonce/shop/on_stored",
        line("01.200", "resolved", message="m1", conversation="c1", outcome="new"),
    )
    write_logs(
        "/askonce/shop/forward",
        line("01.900", "forwarded", message="m1", ticket="T1"),
        line("01.500", "claimed", message="m1"),
    )
    write_logs("/askonce/shop-2/forward", line("00.000", "forwarded", message="m1"))
    return run


LIFE = [
    "2026-03-01 09:00:01.000  accepted         message=m1  request=r-1  inbox=sms",
    "2026-03-01 09:00:01.200  resolved         message=m1  conversation=c1  outcome=new",
    "2026-03-01 09:00:01.500  claimed          message=m1",
    "2026-03-01 09:00:01.900  forwarded        message=m1  ticket=T1",
]


@pytest.mark.parametrize(("wanted", "lines"), [("m1", LIFE), ("r-1", LIFE), ("c1", LIFE[1:2])])
def test_a_life_is_told_in_order_across_all_functions(
    wanted: str, lines: list[str], life: Run
) -> None:
    told = life("logs", wanted, "--prefix", "shop")
    assert told.output.splitlines() == lines
    assert told.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("m9", "--prefix", "shop"), "nothing was logged of m9 in the last 1d: look further back"),
        (("m1", "--prefix", "shop", "--since", "soon"), "--since soon is no span of time"),
        (("m 1", "--prefix", "shop"), "m 1 is no id: take that of a message"),
        (('m"1', "--prefix", "shop"), "is no id"),
        (("m1", "--prefix", "elsewhere"), "there are no logs under /askonce/elsewhere/ here"),
        (("m1",), "no deployment is named: give --prefix, or set ASKONCE_PREFIX"),
    ],
)
def test_what_cannot_be_told_is_said_in_a_line(
    arguments: tuple[str, ...], says: str, life: Run
) -> None:
    told = life("logs", *arguments)
    assert told.exit_code == 2
    [only] = told.output.splitlines()
    assert says in only


def test_a_message_of_the_local_world_is_told_from_its_request_to_its_ticket(
    tmp_path: Path,
) -> None:
    from tests.local import askonce, local

    with local(tmp_path) as own:
        own.post(own.sms("+15550001111", "canary-text, where is it?"))
        own.wait(lambda state: state["tickets"], "a ticket")
        accepted = next(li for li in own.client.log() if li["event"] == "accepted")
        told = own.wait(
            lambda _: (
                "forwarded" in (out := logged(askonce, accepted["request"], tmp_path)) and out
            ),
            "the end of its life",
        )
        nothing = askonce("logs", "m9", "--folder", str(tmp_path))
    names = [li.split()[2] for li in told.splitlines()]
    assert names[0] == "accepted"
    assert names[-1] == "forwarded"
    assert accepted["message"] in told.splitlines()[-1]
    assert "canary" not in told
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)


def logged(run: Callable[..., Any], wanted: str, folder: Path) -> str:
    return str(run("logs", wanted, "--folder", str(folder)).stdout)


def test_a_time_ago_is_written_shortly() -> None:
    assert [tracing.span_of(t).total_seconds() for t in ("30m", "2h", "7d")] == [
        1800,
        7200,
        604_800,
    ]


# A deployment that is not there, or may not be touched


def test_a_deployment_that_is_not_there_is_named(run: Run) -> None:
    told = run("redrive", "forward", "--prefix", "askonse")
    assert told.exit_code == 2
    assert told.output.startswith("AWS has nothing of the deployment askonse here (GetQueueUrl)")


def denied(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "arn:aws:iam::1:user/li"}}, operation)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (denied("AccessDenied", "ReceiveMessage"), "does not let you do ReceiveMessage"),
        (denied("AccessDeniedException", "Scan"), "AWS does not let you do Scan"),
        (denied("ExpiredToken", "Scan"), "log in again, or set AWS_PROFILE"),
        (denied("InternalError", "Scan"), "AWS: InternalError Scan"),
        (NoCredentialsError(), "there are no AWS credentials"),
        (NoRegionError(), "set AWS_DEFAULT_REGION"),
    ],
)
def test_what_aws_says_is_one_line_and_no_traceback(
    error: Exception, says: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_pipeline", refuse)
    told = run("redrive", "--prefix", "askonce")
    assert told.exit_code == 2
    [only] = told.output.splitlines()
    assert says in only
    assert "user/li" not in only


def test_a_fault_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(cli, "_pipeline", break_down)
    assert isinstance(run("redrive").exception, KeyError)


def test_another_deployment_has_another_bucket(run: Run) -> None:
    import os

    deployment.attach("shop")
    assert os.environ["ASKONCE_BUCKET"] == "shop-bytes-123456789012"
    deployment.attach("other")
    assert os.environ["ASKONCE_BUCKET"] == "other-bytes-123456789012"


def test_no_deployment_is_not_the_default_one(run: Run) -> None:
    with pytest.raises(ConfigurationError, match="no deployment is named"):
        deployment.attach()

"""What goes on AWS, held against what AWS must be told: the templates, the zip, the stages."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chalicelib import settings
from chalicelib.errors import ConfigurationError
from infra import artefact, package, stages, template
from infra.stages import Stage

WORKERS = {"OnStored", "OnSnsMessage", "Forward", "Deliver", "Tick"}
QUEUES = ("Forward", "Deliver")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """{stage: its template}, by Chalice, without what the zip holds beside our own."""
    folder = tmp_path_factory.mktemp("package")
    asked = package.Asked((), folder / "out", described=with_an_http_api(folder))
    package.stage(asked)
    (asked.staged / "requirements.txt").write_text("", encoding="utf-8")
    return {
        one.name: package.by_chalice(asked.staged, one, folder / one.name)
        for one in package.stages_of(asked)
    }


def with_an_http_api(folder: Path) -> Path:
    """The stages of .chalice/config.json, and one more."""
    config = json.loads(package.DESCRIBED.read_text(encoding="utf-8"))
    said = {"ASKONCE_PARTS": "edge", "ASKONCE_INBOXES": "*", "ASKONCE_API": "http"}
    config["stages"]["edge-http"] = {"environment_variables": said}
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.fixture
def core(templates: dict[str, Any]) -> Any:
    return templates["core"]


def event_of(core: Any, function: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A function of one event source: its properties, and the source's."""
    properties = template.functions(core)[function]
    (event,) = properties["Events"].values()
    return properties, event["Properties"]


# The core, and its edges


def test_a_core_has_the_workers_and_all_that_is_kept_and_no_api(core: Any) -> None:
    types = {resource["Type"] for resource in core["Resources"].values()}
    assert set(template.functions(core)) == WORKERS
    assert {"AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::S3::Bucket", "AWS::KMS::Key"} <= types
    assert "AWS::Serverless::Api" not in types


def test_an_edge_has_an_api_and_nothing_that_is_lost_with_it(templates: dict[str, Any]) -> None:
    for stage in ("edge-wechat", "edge-rest"):
        edge = templates[stage]
        types = {resource["Type"] for resource in edge["Resources"].values()}
        assert set(template.functions(edge)) == {"APIHandler"}
        assert "AWS::Serverless::Api" in types
        kept = {"AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::S3::Bucket", "AWS::KMS::Key"}
        assert not types & (kept | {"AWS::Logs::LogGroup"})


def test_an_edge_serves_the_inboxes_that_its_stage_names(templates: dict[str, Any]) -> None:
    (api,) = template.functions(templates["edge-rest"]).values()
    own = api["Environment"]["Variables"]
    assert (own["ASKONCE_INBOXES"], own["ASKONCE_PARTS"]) == ("email, sms, webchat", "edge")


def test_a_stage_may_have_both(templates: dict[str, Any]) -> None:
    assert set(template.functions(templates["dev"])) == WORKERS | {"APIHandler"}


def test_an_edge_imports_the_key_that_the_core_exports(templates: dict[str, Any]) -> None:
    exported = templates["core"]["Outputs"]["Key"]["Export"]["Name"]
    assert json.dumps({"Fn::ImportValue": exported}) in json.dumps(templates["edge-wechat"])
    assert "Fn::ImportValue" not in json.dumps([templates["core"], templates["dev"]])


def test_every_function_is_told_where_the_core_is(templates: dict[str, Any]) -> None:
    for whole in templates.values():
        shared = whole["Globals"]["Function"]["Environment"]["Variables"]
        assert shared["ASKONCE_PREFIX"] == {"Ref": "Prefix"}
        assert shared["ASKONCE_BUCKET"] == {"Fn::Sub": "${Prefix}-bytes-${AWS::AccountId}"}


# The table by units a second, for who wants that


def table(whole: Any, *, by_units: bool) -> dict[str, Any]:
    """Properties of the table, as CloudFormation would have them."""

    def chosen(node: Any) -> Any:
        match node:
            case {"Fn::If": ["ByUnits", yes, no]}:
                return chosen(yes if by_units else no)
            case dict():
                found = {key: chosen(value) for key, value in node.items()}
                return {k: v for k, v in found.items() if v != {"Ref": "AWS::NoValue"}}
            case list():
                return [chosen(value) for value in node]
        return node

    properties: dict[str, Any] = chosen(whole["Resources"]["MessagesTable"]["Properties"])
    return properties


def test_the_table_is_paid_by_request_unless_it_is_told_its_units(core: Any) -> None:
    assert core["Parameters"]["WriteUnits"]["Default"] == 0
    stated = template.read(package.ROOT / "infra" / "resources.yaml")
    assert table(core, by_units=False) == stated["Resources"]["MessagesTable"]["Properties"]


def test_by_units_the_table_and_its_indexes_have_theirs_and_get_more(core: Any) -> None:
    properties = table(core, by_units=True)
    indexes = properties.pop("GlobalSecondaryIndexes")
    units = {"WriteCapacityUnits": {"Ref": "WriteUnits"}, "ReadCapacityUnits": {"Ref": "ReadUnits"}}
    assert [
        properties["ProvisionedThroughput"],
        *(i["ProvisionedThroughput"] for i in indexes),
    ] == ([units] * 3)
    targets = of_type(core, "ApplicationAutoScaling::ScalableTarget")
    followed = of_type(core, "ApplicationAutoScaling::ScalingPolicy").values()
    assert [policy["ScalingTargetId"]["Ref"] for policy in followed] == list(targets)
    writing = {t["ResourceId"]["Fn::Sub"] for t in targets.values()
               if t["ScalableDimension"].endswith("WriteCapacityUnits")}  # fmt: skip
    names = (f"/index/{index['IndexName']}" for index in indexes)
    assert writing == {f"table/${{MessagesTable}}{name}" for name in ("", *names)}
    parts = [core["Resources"][name] for name in core["Resources"] if "Follow" in name]
    assert len(parts) == len(targets)
    assert all(part["Condition"] == "ByUnits" for part in parts)


# An HTTP API, for a stage that wants one


def of_type(whole: Any, kind: str) -> dict[str, Any]:
    """{logical name: properties} of an API's resources."""
    found = whole["Resources"].items()
    return {name: r["Properties"] for name, r in found if r["Type"] == f"AWS::{kind}"}


def routes_of_rest(whole: Any) -> set[str]:
    (rest,) = of_type(whole, "Serverless::Api").values()
    paths = rest["DefinitionBody"]["paths"].items()
    return {f"{method.upper()} {path}" for path, methods in paths for method in methods}


def test_an_http_api_has_the_routes_that_a_rest_api_would_have(templates: dict[str, Any]) -> None:
    routes = of_type(templates["edge-http"], "ApiGatewayV2::Route").values()
    keys = [route["RouteKey"] for route in routes]
    assert sorted(keys) == sorted(routes_of_rest(templates["edge-rest"]))
    assert len(keys) > 15
    function = {"Fn::Sub": "integrations/${HttpApiIntegration}"}
    assert all(route["Target"] == function for route in routes)


def test_an_http_api_asks_its_function_in_the_format_that_chalice_reads(
    templates: dict[str, Any],
) -> None:
    (function,) = of_type(templates["edge-http"], "ApiGatewayV2::Integration").values()
    assert function["PayloadFormatVersion"] == "1.0"
    assert function["IntegrationUri"] == {"Fn::GetAtt": ["APIHandler", "Arn"]}


def test_an_http_api_leaves_the_browsers_questions_to_its_function(
    templates: dict[str, Any],
) -> None:
    (api,) = of_type(templates["edge-http"], "ApiGatewayV2::Api").values()
    assert set(api) == {"Name", "ProtocolType"}


def test_an_http_api_takes_no_more_than_it_is_told(templates: dict[str, Any]) -> None:
    (stage,) = of_type(templates["edge-http"], "ApiGatewayV2::Stage").values()
    assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}
    assert (stage["StageName"], stage["AutoDeploy"]) == ("$default", True)


def test_of_the_rest_api_nothing_is_left_beside_an_http_api(templates: dict[str, Any]) -> None:
    written = json.dumps(templates["edge-http"])
    assert "RestAPI" not in written
    assert "Serverless::Api" not in written
    assert "ApiName" not in written
    assert "ApiGatewayV2" not in json.dumps([templates["edge-rest"], templates["dev"]])


def test_the_function_may_be_called_by_its_own_http_api_alone(templates: dict[str, Any]) -> None:
    (allowed,) = of_type(templates["edge-http"], "Lambda::Permission").values()
    assert allowed["SourceArn"]["Fn::Sub"].endswith(":${AWS::AccountId}:${HttpApi}/*")


def test_the_address_of_an_http_api_has_no_stage_in_its_path(templates: dict[str, Any]) -> None:
    address = templates["edge-http"]["Outputs"]["EndpointURL"]["Value"]["Fn::Sub"]
    assert address == "https://${HttpApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}/"


def test_an_edge_is_otherwise_the_same_whatever_its_api(templates: dict[str, Any]) -> None:
    rest, http = (template.functions(templates[s])["APIHandler"] for s in ("dev", "edge-http"))
    assert rest["Handler"] == http["Handler"]
    assert rest["LoggingConfig"] == http["LoggingConfig"]
    alarms = [set(of_type(templates[s], "CloudWatch::Alarm")) for s in ("edge-rest", "edge-http")]
    assert alarms[0] == alarms[1] == {"ApiFailedAlarm", "ApiRefusedAlarm", "ApiSlowAlarm"}


def test_an_api_that_nobody_knows_is_refused_before_anything_is_packaged(tmp_path: Path) -> None:
    described = with_an_http_api(tmp_path)
    written = described.read_text(encoding="utf-8").replace('"http"', '"htpp"')
    described.write_text(written, encoding="utf-8")
    asked = package.Asked(("edge-http",), tmp_path / "out", described=described)
    with pytest.raises(
        ConfigurationError, match="edge-http: its ASKONCE_API is htpp: it is rest or http"
    ):
        package.package(asked)
    assert not (tmp_path / "out").exists()


# Inboxes that nobody serves


def staged(parts: str, inboxes: str, name: str = "edge") -> Stage:
    return Stage(name, {"ASKONCE_PARTS": parts, "ASKONCE_INBOXES": inboxes})


@pytest.mark.parametrize(
    ("inboxes", "left"), [("wechat, email", "sms, webchat"), ("*", ""), ("", "wechat, email, sms")]
)
def test_an_inbox_whose_webhooks_no_edge_takes_is_named(inboxes: str, left: str) -> None:
    document = settings.read(package.ROOT / "askonce.toml")
    alone = staged("core edge", "*", "dev")  # a deployment of its own: it helps no other one
    line = stages.unserved([alone, staged("core", "*", "core"), staged("edge", inboxes)], document)
    assert bool(line) == bool(left)
    assert left in line
    assert "ASKONCE_INBOXES of edge in .chalice/config.json" in line or not left


def test_a_deployment_without_other_edges_serves_itself() -> None:
    document = settings.read(package.ROOT / "askonce.toml")
    assert stages.unserved([staged("core edge", "*", "dev")], document) == ""
    assert "of dev in" in stages.unserved([staged("core edge", "sms", "dev")], document)
    assert "no stage with an edge" in stages.unserved([staged("core", "*", "core")], document)


def test_who_packages_hears_of_an_inbox_that_is_not_served(tmp_path: Path) -> None:
    class HeardError(Exception):
        """Enough: what is packaged is no concern of this."""

    def hear(line: str) -> None:
        raise HeardError(line)

    config = tmp_path / "askonce.toml"
    own = '\n[inboxes.sms-hk]\nconnector = "webchat"\ntoken_secret = "env:X"\norigins = ["https://shop.example"]\n'
    text = (package.ROOT / "askonce.toml").read_text(encoding="utf-8")
    config.write_text(text + own, encoding="utf-8")
    with pytest.raises(HeardError, match="no edge takes the webhooks of sms-hk"):
        package.package(package.Asked(("edge-rest",), tmp_path / "out", config), hear)


# Event sources


def test_the_stream_misses_nothing_and_is_blocked_by_nothing(core: Any) -> None:
    _, source = event_of(core, "OnStored")
    assert source["StartingPosition"] == "TRIM_HORIZON"
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["BisectBatchOnFunctionError"] is True
    assert 0 < source["MaximumRetryAttempts"] <= 100
    assert 0 < source["MaximumRecordAgeInSeconds"] <= 86_400
    dead = source["DestinationConfig"]["OnFailure"]
    assert dead == {"Type": "SQS", "Destination": {"Fn::GetAtt": ["StreamDeadLetters", "Arn"]}}


def test_the_stream_wakes_its_function_for_what_is_new_only(core: Any) -> None:
    _, source = event_of(core, "OnStored")
    (pattern,) = (json.loads(f["Pattern"]) for f in source["FilterCriteria"]["Filters"])
    assert pattern["eventName"] == ["INSERT"]
    assert pattern["dynamodb"]["NewImage"]["kind"]["S"] == ["message", "errand"]


@pytest.mark.parametrize("function", QUEUES)
def test_a_queue_gives_back_what_failed_and_only_that(core: Any, function: str) -> None:
    _, source = event_of(core, function)
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize("function", QUEUES)
def test_a_queue_is_slowed_down_by_its_own_limit_and_not_by_throttling(
    core: Any, function: str
) -> None:
    properties, source = event_of(core, function)
    assert 2 <= source["ScalingConfig"]["MaximumConcurrency"] <= 1000
    assert "ReservedConcurrentExecutions" not in properties


@pytest.mark.parametrize("function", QUEUES)
def test_a_queue_hides_what_was_taken_for_six_timeouts_and_keeps_what_fails(
    core: Any, function: str
) -> None:
    properties, _ = event_of(core, function)
    queue = core["Resources"][f"{function}Queue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * properties["Timeout"]
    dead = {"Fn::GetAtt": [f"{function}DeadLetters", "Arn"]}
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == dead
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5


def test_what_a_topic_brought_is_kept_if_it_cannot_be_taken(core: Any) -> None:
    properties, source = event_of(core, "OnSnsMessage")
    assert source["Topic"] == {"Fn::Sub": "${InboundTopic}"}
    invoked = properties["EventInvokeConfig"]
    assert invoked["MaximumRetryAttempts"] == 2
    dead = {"Fn::GetAtt": ["InboundDeadLetters", "Arn"]}
    assert invoked["DestinationConfig"]["OnFailure"]["Destination"] == dead


def test_the_minute_is_not_worked_through_twice_when_it_failed(core: Any) -> None:
    properties, _ = event_of(core, "Tick")
    assert properties["EventInvokeConfig"] == {"MaximumRetryAttempts": 0}


def test_every_function_has_memory_an_end_a_role_and_a_log_that_ends(
    templates: dict[str, Any],
) -> None:
    whole = templates["dev"]
    for name, function in template.functions(whole).items():
        assert function["MemorySize"] >= 512
        assert function["Timeout"] <= (29 if name == "APIHandler" else 60)
        logging = function["LoggingConfig"]
        # Lambda's own lines are a third of the log where every run has some.
        assert (logging["LogFormat"], logging["SystemLogLevel"]) == (
            "JSON",
            {"Ref": "LambdaLogLevel"},
        )
    roles = [f["Role"]["Fn::GetAtt"][0] for f in template.functions(whole).values()]
    assert len(set(roles)) == len(roles)
    logs = [r for r in whole["Resources"].values() if r["Type"] == "AWS::Logs::LogGroup"]
    assert len(logs) == len(roles)
    assert all(log["Properties"]["RetentionInDays"] == {"Ref": "LogDays"} for log in logs)


def test_the_api_takes_no_more_than_it_is_told(templates: dict[str, Any]) -> None:
    (own,) = templates["edge-rest"]["Resources"]["RestAPI"]["Properties"]["MethodSettings"]
    assert own["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}


def test_what_calls_providers_may_be_given_a_fixed_address_and_nothing_else_is(core: Any) -> None:
    placed = {
        name: f["VpcConfig"] for name, f in template.functions(core).items() if "VpcConfig" in f
    }
    assert set(placed) == {"Forward", "Deliver", "Tick"}
    for condition, chosen, otherwise in (held["Fn::If"] for held in placed.values()):
        assert condition == "InVpc"
        assert chosen["SubnetIds"] == {"Ref": "SubnetIds"}
        assert otherwise == {"Ref": "AWS::NoValue"}
    roles = core["Resources"]["InVpcPolicy"]["Properties"]["Roles"]
    assert roles == [{"Ref": f"{name}Role"} for name in ("Forward", "Deliver", "Tick")]
    assert all(role["Ref"] in core["Resources"] for role in roles)


# What breaks the rules is not made


def test_what_is_packaged_breaks_no_rule(templates: dict[str, Any]) -> None:
    for whole in templates.values():
        assert list(template.faults(whole)) == []


@pytest.mark.parametrize(
    ("stage", "path", "value", "fault"),
    [
        ("edge-rest", "RestAPI/Properties/MethodSettings", None, "MethodSettings is missing"),
        (
            "edge-http",
            "HttpApiIntegration/Properties/PayloadFormatVersion",
            "2.0",
            "HttpApiIntegration: PayloadFormatVersion must be 1.0",
        ),
        (
            "edge-http",
            "HttpApi/Properties/CorsConfiguration",
            {"AllowOrigins": ["*"]},
            "CorsConfiguration must not be there",
        ),
        ("edge-http", "HttpApiStage/Properties/AutoDeploy", None, "AutoDeploy must be True"),
        (
            "edge-http",
            "HttpApiStage/Properties/DefaultRouteSettings",
            None,
            "DefaultRouteSettings is missing",
        ),
    ],
)
def test_an_api_that_would_answer_in_our_place_or_not_at_all_is_a_fault(
    templates: dict[str, Any], stage: str, path: str, value: Any, fault: str
) -> None:
    assert any(fault in found for found in broken(templates[stage], path, value))


def broken(core: Any, path: str, value: Any) -> list[str]:
    """The faults of a template in which one thing is otherwise; None takes it away."""
    whole = json.loads(json.dumps(core))
    *way, last = path.split("/")
    place = whole["Resources"]
    for step in way:
        place = place.setdefault(step, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return list(template.faults(whole))


STREAM = "OnStored/Properties/Events/OnStoredDynamodbEventSource/Properties"
QUEUE = "Forward/Properties/Events/ForwardSqsEventSource/Properties"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (f"{STREAM}/StartingPosition", "LATEST", "StartingPosition must be TRIM_HORIZON"),
        (f"{STREAM}/FunctionResponseTypes", None, "FunctionResponseTypes must be"),
        (f"{STREAM}/BisectBatchOnFunctionError", None, "BisectBatchOnFunctionError must be True"),
        (f"{STREAM}/MaximumRetryAttempts", None, "MaximumRetryAttempts is missing"),
        (f"{STREAM}/DestinationConfig", None, "DestinationConfig is missing"),
        (f"{STREAM}/FilterCriteria", None, "FilterCriteria is missing"),
        (f"{QUEUE}/FunctionResponseTypes", [], "FunctionResponseTypes must be"),
        (f"{QUEUE}/ScalingConfig", None, "ScalingConfig is missing"),
        (f"{QUEUE}/Queue", {"Fn::Sub": "${Forwrad.Arn}"}, "its queue Forwrad is none"),
        ("Forward/Properties/Timeout", 61, "must hide what was taken for 366 s"),
        ("Forward/Properties/MemorySize", 128, "128 MB are too few"),
        ("Forward/Properties/LoggingConfig", None, "has no log group"),
        ("Forwrad/Properties/Timeout", 60, "Forwrad in infra/ is no function of the app"),
        (
            "Forward/Properties/Events/ForwardSqsEvnt/Properties/BatchSize",
            1,
            "the event ForwardSqsEvnt in infra/ is none of the app's",
        ),
    ],
)
def test_a_template_that_would_lose_messages_is_a_fault(
    core: Any, path: str, value: Any, fault: str
) -> None:
    assert any(fault in found for found in broken(core, path, value))


def test_a_stage_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no stage prod in"):
        package.stages_of(package.Asked(("prod",), tmp_path))


def test_a_part_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ASKONCE_PARTS names egde"):
        assert Stage("s", {"ASKONCE_PARTS": "egde"}).parts


def test_settings_with_a_fault_are_not_packaged(tmp_path: Path) -> None:
    config = tmp_path / "askonce.toml"
    written = (package.ROOT / "askonce.toml").read_text(encoding="utf-8")
    config.write_text(written.replace('number = "+1', 'nunber = "+1'), encoding="utf-8")
    with pytest.raises(ConfigurationError, match='inbox "sms": nunber'):
        package.package(package.Asked((), tmp_path / "out", config))
    assert not (tmp_path / "out").exists()


def test_a_stage_that_serves_an_inbox_that_there_is_not_is_not_packaged(tmp_path: Path) -> None:
    config = package.ROOT / "examples" / "deployed.toml"
    with pytest.raises(ConfigurationError, match="edge-rest: its ASKONCE_INBOXES names email"):
        package.package(package.Asked(("core", "edge-rest"), tmp_path / "out", config))


def test_secrets_are_not_read_to_package(tmp_path: Path) -> None:
    config = tmp_path / "askonce.toml"
    written = (package.ROOT / "askonce.toml").read_text(encoding="utf-8")
    config.write_text(written.replace('"env:', '"ssm:/askonce/'), encoding="utf-8")
    package.demand_good_settings(config)


# The zip


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip as Chalice leaves it: some of it never runs."""
    content: dict[str, str | bytes] = {
        "app.py": "X = 1\n",
        "some/__init__.py": "",
        "some/tests/test_some.py": "assert False\n",
        "some/native.so": b"\x7fELF" + bytes(14) + b"\x3e\x00",
        "some-1.0.dist-info/METADATA": "Name: some\n",
        "some-1.0.dist-info/licenses/LICENSE": "MIT\n",
        "botocore/__init__.py": "",
        "botocore/data/endpoints.json": json.dumps(
            {"partitions": [{"partition": "aws", "services": {"sqs": {"x": 1}, "ec2": {}}}]}
        ),
        "botocore/data/sqs/2012-11-05/service-2.json": "{}",
        "botocore/data/ec2/2016-11-15/service-2.json": "{}",
    }
    path = tmp_path / "deployment.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def finished(packed: Path, tmp_path: Path) -> Iterator[zipfile.ZipFile]:
    artefact.finish(packed, tmp_path / "finished.zip")
    with zipfile.ZipFile(tmp_path / "finished.zip") as archive:
        yield archive


def test_what_no_function_uses_is_left_out_and_licences_stay(finished: zipfile.ZipFile) -> None:
    names = set(finished.namelist())
    assert "some/tests/test_some.py" not in names
    assert not any("dist-info" in name for name in names)
    assert "licenses/some/LICENSE" in names
    assert "botocore/data/sqs/2012-11-05/service-2.json" in names
    assert not any("ec2" in name for name in names)
    endpoints = json.loads(finished.read("botocore/data/endpoints.json"))
    assert endpoints["partitions"][0]["services"] == {"sqs": {"x": 1}}


def test_every_module_is_compiled_good_whatever_the_time_of_its_file(
    finished: zipfile.ZipFile,
) -> None:
    compiled = finished.read(artefact.compiled("app.py"))
    # PEP 552: the lowest bit says that it is by hash, the next that the source is to be looked at.
    assert int.from_bytes(compiled[4:8], "little") == 0b01
    assert b"/var/task/app.py" in compiled


def test_the_same_content_is_the_same_zip(packed: Path, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        artefact.finish(packed, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:  # times of a zip are of two seconds
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_good_zip_has_no_faults(finished: zipfile.ZipFile, tmp_path: Path) -> None:
    found = list(artefact.faults(tmp_path / "finished.zip", {"app.py"}, "x86_64"))
    assert found == []


def test_what_is_wrong_with_a_zip_is_named(packed: Path) -> None:
    found = list(artefact.faults(packed, {"app.py", "connectors/x.py"}, "arm64"))
    assert "connectors/x.py is not in the zip" in found
    assert "app.py is not compiled" in found
    assert "some/native.so is for x86_64, not for arm64" in found


def test_all_that_the_code_calls_is_in_the_zip() -> None:
    """A service whose model is left out cannot be called."""
    import re

    called = set()
    for folder in ("chalicelib", "connectors"):
        for path in (package.ROOT / folder).rglob("*.py"):
            found = re.findall(r"client\(\s*\"([a-z0-9-]+)\"", path.read_text(encoding="utf-8"))
            called |= set(found)
    assert called == set(artefact.SERVICES)


def test_the_parts_of_templates_are_yaml_without_keys_that_stand_twice() -> None:
    """YAML takes the last of two equal keys and says nothing."""

    class Strict(template.Loader):
        pass

    def once(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {sorted(keys)}"
        return dict(yaml.SafeLoader.construct_mapping(loader, node, deep))

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, once)
    for path in (package.ROOT / "infra").glob("*.yaml"):
        yaml.load(path.read_text(encoding="utf-8"), Loader=Strict)

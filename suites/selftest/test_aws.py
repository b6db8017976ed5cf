"""What boto3 is told to do, tried on moto in this process: the account, what is declared in it, and what the mesh makes of it; hermetic."""

import json
import tomllib
import uuid
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from clusters import beside
from clusters.beside import LABEL, UNOWNED, sweep
from clusters.errors import UserError
from clusters.images.cache import process_mark
from clusters.manifests import load_manifest, parse
from clusters.paths import CHECKOUT
from suites.support import awscalls
from workloads.aws import code, discovery, execution, invoking, migration, resources
from workloads.aws.account import INVENTED, Account, Keys
from workloads.aws.resources import Resources
from workloads.lambda_runtime import INVOCATIONS, PORT
from workloads.media import LAMBDA_HOST, S3_HOST, STRANGER_HOST, media

FUNCTIONS = CHECKOUT / "suites" / "functions"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Moto's server on the loopback, in this process."""
    with pytest.MonkeyPatch.context() as told:
        told.setenv("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def account(endpoint) -> Iterator[Account]:
    made = Account(endpoint)
    yield made
    made.close()


@pytest.fixture
def cloud(account) -> Iterator[Resources]:
    made = Resources(account, account.role(f"function-{uuid.uuid4().hex[:8]}"))
    yield made
    made.remove()


def declared(name, **values):
    """Return what a check's manifest declares of AWS."""
    return [one for one in load_manifest(FUNCTIONS / name, namespace="ns", **values) if resources.declared(one)]


def app_mesh(address="10.0.0.1", endpoints="[]"):
    return {"instance": json.dumps({"AWS_INSTANCE_IPV4": address, "AWS_INSTANCE_PORT": str(PORT), "stage": "live"}), "endpoints": endpoints}


# The account


@pytest.mark.parametrize(
    "endpoint", ["", "http://", "https://127.0.0.1:1", "http://8.8.8.8", "https://s3.amazonaws.com", "http://s3.us-east-1.amazonaws.com", "http://localhost:5000", "127.0.0.1:5000"],
)
def test_no_client_is_made_without_an_endpoint_of_ours(endpoint):
    with pytest.raises(ValueError, match="never AWS's own"):
        Account(endpoint)


def test_nothing_that_a_person_has_set_up_for_aws_is_read(endpoint, tmp_path, monkeypatch):
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\nendpoint_url = https://s3.amazonaws.com\n")
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "nobody", "AWS_ENDPOINT_URL": "https://s3.amazonaws.com", "HTTP_PROXY": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "theirs", "AWS_CA_BUNDLE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    account = Account(endpoint, Keys("AKIATRIED00000000000", "tried"))
    client = account.client("s3")

    assert client.meta.endpoint_url == endpoint
    assert client.meta.region_name == "us-east-1"
    assert client._request_signer._credentials.access_key == "AKIATRIED00000000000"
    account.close()


def test_keys_do_not_show_their_secret():
    assert "secret-of-mine" not in repr(Keys("AKIA", "secret-of-mine"))


def test_signatures_are_looked_at_for_a_block_and_not_beyond_it(account):
    writer, reader = account.user("writer", ["s3:PutObject", "s3:CreateBucket"]), account.user("reader", ["s3:GetObject"])
    account.client("s3").create_bucket(Bucket="looked-at")

    def put(keys: Keys) -> str:
        other = account.with_keys(keys)
        try:
            other.client("s3").put_object(Bucket="looked-at", Key="k", Body=b"v")
        except ClientError as refused:
            return str(refused.response["Error"]["Code"])
        finally:
            other.close()
        return "taken"

    with account.signatures_required():
        said = [put(keys) for keys in (writer, reader, INVENTED, Keys(writer.access_key, "wrong"))]

    assert said == ["taken", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"]
    assert put(INVENTED) == "taken"


# Code


def test_equal_code_is_equal_bytes_and_another_release_is_not():
    one, other = (code.package(code.files("serverless_function", release=release)) for release in ("1", "2"))

    assert one == code.package(code.files("serverless_function", release="1"))
    assert code.digest(one) != code.digest(other)


@given(st.dictionaries(st.text("abcdefgh.", min_size=1, max_size=8), st.binary(max_size=40), min_size=1))
def test_the_order_of_files_changes_nothing(content):
    assert code.package(content) == code.package(dict(reversed(content.items())))


def test_a_function_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "FUNCTIONS", tmp_path)
    (tmp_path / "empty").mkdir()

    with pytest.raises(ValueError, match="no function 'empty'"):
        code.files("empty", release="1")


# What is declared


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lambda.yaml", {"release": "1", "level": "info"}), ("artefacts.yaml", {"address": "10.0.0.1"}), ("upload.yaml", {"address": "10.0.0.1"}),
        ("app_mesh.yaml", app_mesh()), ("cloud_map.yaml", {"first": '{"A": "1"}', "second": '{"A": "2"}', "address": "10.0.0.2", "endpoints": "[]", "count": "0"}),
        ("lambda_faults.yaml", {"gone": "10.0.0.1"}),
    ],
)
def test_aws_takes_what_each_check_declares_and_nothing_is_left_of_it(account, cloud, name, values):
    cloud.apply(declared(name, **values))
    cloud.apply(declared(name, **values))
    cloud.remove()

    assert account.client("lambda").list_functions()["Functions"] == []
    assert "media-" not in str(account.client("s3").list_buckets()["Buckets"])
    assert account.client("appmesh").list_meshes()["meshes"] == []
    assert account.client("servicediscovery").list_services()["Services"] == []
    assert account.client("servicediscovery").list_namespaces()["Namespaces"] == []


def test_what_is_declared_anew_is_changed_and_what_is_the_same_is_left(account, cloud):
    cloud.apply(declared("lambda.yaml", release="1", level="info"))
    first = account.client("lambda").get_function_configuration(FunctionName="serverless-function")
    cloud.apply(declared("lambda.yaml", release="2", level="debug"))
    told = account.client("lambda").get_function_configuration(FunctionName="serverless-function")

    assert told["CodeSha256"] == code.digest(code.package(cloud.code("serverless-function"))) != first["CodeSha256"]
    assert told["Environment"]["Variables"]["ENVOY_LOG_LEVEL"] == "debug"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apiVersion: aws.faasmesh.dev/v1\nkind: Queue\nmetadata: {name: q}\nspec: {}", "x.yaml:1 Queue/q: expected one of Function"),
        ("apiVersion: aws.faasmesh.dev/v1\nkind: Route\nmetadata: {name: r}\nmesh: none\nrouter: none\nspec: {}", "x.yaml:1 Route/r: expected to be taken by AWS, seen MeshNotFound"),
    ],
)
def test_what_aws_does_not_take_is_told_by_its_line(cloud, text, said):
    with pytest.raises(UserError, match=said):
        cloud.apply(parse(text, FUNCTIONS / "x.yaml"))


def test_an_instance_that_left_is_discovered_no_more_and_is_not_unmade_twice(account, cloud):
    cloud.apply(declared("app_mesh.yaml", **app_mesh()))
    stage = [{"key": "stage", "value": "live"}]
    found = discovery.discover(account, "serverless.local", "lambda-function", stage)
    cloud.remove_one("Instance", "live-1")

    assert found == [discovery.Instance("live-1", "10.0.0.1", PORT)]
    assert discovery.discover(account, "serverless.local", "lambda-function", stage) == []


def test_instances_of_another_stage_are_not_discovered(account, cloud):
    cloud.apply(declared("app_mesh.yaml", **app_mesh()))

    assert discovery.discover(account, "serverless.local", "lambda-function", [{"key": "stage", "value": "test"}]) == []


def test_an_instance_without_an_address_is_refused():
    with pytest.raises(ValueError, match="i has no AWS_INSTANCE_IPV4 and no AWS_INSTANCE_PORT"):
        discovery.Instance.of({"InstanceId": "i", "Attributes": {}})


def test_endpoints_are_yaml_that_a_service_entry_takes():
    text = discovery.endpoints([discovery.Instance("a", "10.0.0.1", 8080)])
    (entry,) = [one for one in load_manifest(FUNCTIONS / "app_mesh.yaml", namespace="ns", **app_mesh(endpoints=text)) if one.kind == "ServiceEntry"]

    assert entry.body["spec"]["endpoints"] == [{"address": "10.0.0.1", "ports": {"http": 8080}}]


# From App Mesh to Istio


def test_what_is_applied_says_what_is_registered(account, cloud):
    cloud.apply(declared("app_mesh.yaml", **app_mesh()))
    found = discovery.discover(account, "serverless.local", "lambda-function")
    documents = load_manifest(FUNCTIONS / "app_mesh.yaml", namespace="ns", **app_mesh(endpoints=discovery.endpoints(found)))
    applied = {one.kind: one.body["spec"] for one in documents if not resources.declared(one)}
    rows = [row.to_json() for row in migration.rows(migration.registered(account, "serverless-mesh", ["serverless-function"]))]

    assert awscalls.said_the_same("same", rows, applied).held
    assert {row["resource"].split()[0] for row in rows} == {"Mesh", "VirtualNode", "VirtualRouter", "Route", "Function", "Instance"}
    assert "App Mesh, Cloud Map, Lambda" in migration.table(migration.rows([]))


PLAIN = st.recursive(st.integers() | st.text("ab", min_size=1), lambda below: st.dictionaries(st.text("abc", min_size=1, max_size=3), below, min_size=1, max_size=3), max_leaves=8)


def leaves(value) -> int:
    return sum(leaves(below) for below in value.values()) if isinstance(value, dict) else 1


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), PLAIN, max_size=4))
def test_every_setting_has_a_row_even_where_nothing_says_the_same(settings):
    rows = migration.rows([{"kind": "Mesh", "name": "m", "settings": settings}])

    assert len(rows) == leaves(settings)
    assert {row.kind for row in rows} <= {migration.NOTHING}
    assert len(migration.table(rows).splitlines()) == len(rows) + 1


@pytest.mark.parametrize(
    ("path", "found"), [("a.0.b", 1), ("a.1.b", None), ("a.x", None), ("c.d", None), ("a", [{"b": 1}])],
)
def test_a_dotted_path_leads_into_a_document_or_to_nothing(path, found):
    assert migration.at({"a": [{"b": 1}], "c": "text"}, path) == found


# Invocations


def test_a_function_that_is_not_there_and_an_account_that_is_gone_are_told(account):
    unknown = invoking.invoke(account, "nobody", {})
    lost = Account("http://127.0.0.1:9")
    gone = invoking.invoke(lost, "nobody", {})
    lost.close()

    assert (unknown["status"], unknown["error"]) == (404, "ResourceNotFoundException")
    assert (gone["status"], gone["error"]) == (0, "EndpointConnectionError")


LOG = """\
START RequestId: a Version: $LATEST
30 Nov 2026 18:29:56,452 [INFO] (rapid) INVOKE START(requestId: a)
{"event":"invoked","nonce":"n","request":"a"}
{"half a line
{"event":"other"}
END RequestId: a
START RequestId: b Version: $LATEST
30 Nov 2026 18:29:56,492 [ERROR] (rapid) Invoke failed InvokeID=b error=Runtime exited with error: exit status 1
START RequestId: c Version: $LATEST
30 Nov 2026 18:29:56,492 [ERROR] (rapid) Invoke failed error=exit status 3 InvokeID=c
START RequestId: d Version: $LATEST
"""


def test_what_an_emulator_has_begun_and_not_ended_is_under_way():
    assert execution.busy(LOG) == ["d"]
    assert execution.busy("") == []


def test_an_environment_lives_where_it_runs_and_comes_to_rest(monkeypatch):
    monkeypatch.setattr(execution, "IDLE_WITHIN_S", 0.1)

    def environment(log, *, running=True):
        return execution.Environment(SimpleNamespace(running=lambda: running, log=lambda: log))

    assert environment(LOG.rpartition("START")[0]).lives()
    assert not environment(LOG).lives()
    assert not environment("", running=False).lives()


def test_a_function_s_own_lines_are_told_from_everything_else():
    assert execution.events(LOG) == [{"event": "invoked", "nonce": "n", "request": "a"}]


def test_an_environment_is_told_what_lambda_tells_and_the_function_s_own_variables(account, cloud):
    cloud.apply(declared("lambda.yaml", release="1", level="info"))
    told = execution.environment_of(account.client("lambda").get_function_configuration(FunctionName="serverless-function"))

    assert told["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs18.x"
    assert told["AWS_LAMBDA_FUNCTION_TIMEOUT"] == "2"
    assert told["ENVOY_LOG_LEVEL"] == "info"


def test_code_that_the_account_does_not_have_is_put_into_no_environment(account, cloud):
    cloud.apply(declared("lambda.yaml", release="1", level="info"))
    aws = SimpleNamespace(account=account)

    with pytest.raises(execution.NotTheFunction, match="in the account"):
        execution.start(aws, "serverless-function", code.files("serverless_function", release="2"), name="x")


# Containers beside the cluster


class Container:
    def __init__(self, owner, mounts=()):
        self.labels, self.attrs, self.removed = {LABEL: owner}, {"Mounts": list(mounts)}, False

    def remove(self, *, force, v):
        assert force
        assert v
        self.removed = True


@pytest.fixture
def engine():
    """A Docker with some containers, and the names of the volumes that were removed."""
    found, gone = [], []
    volumes = SimpleNamespace(get=lambda name: SimpleNamespace(remove=lambda: gone.append(name)))
    return SimpleNamespace(found=found, gone=gone, volumes=volumes, containers=SimpleNamespace(list=lambda **_: found))


def test_what_a_killed_run_left_goes_with_what_its_containers_had_started(engine):
    started = Container(UNOWNED, [{"Type": "volume", "Name": "code"}, {"Type": "bind", "Source": "/x"}])
    engine.found.extend([Container("1-1"), started])

    assert sweep(engine) == 2
    assert all(one.removed for one in engine.found)
    assert engine.gone == ["code"]


def test_what_a_living_process_has_stays_and_so_does_what_it_may_have_started(engine):
    engine.found.extend([Container(process_mark()), Container(UNOWNED), Container("1-1")])

    assert sweep(engine) == 1
    assert [one.removed for one in engine.found] == [False, False, True]


def test_a_docker_that_is_elsewhere_lends_no_socket():
    client = SimpleNamespace(api=SimpleNamespace(base_url="http://127.0.0.1:2375", get_adapter=lambda _: SimpleNamespace()))

    with pytest.raises(UserError, match="a socket of this machine"):
        beside.socket_path(client)


# Images and workloads


def locked(path) -> dict[str, str]:
    lines = [line for line in (CHECKOUT / path).read_text().splitlines() if not line.startswith("#")]
    assert all(len(line.partition("--hash=sha256:")[2]) == 64 for line in lines)
    return dict(line.split()[0].split("==") for line in lines)


def test_the_images_hold_the_boto3_of_the_host_and_the_moto_that_is_tried_here():
    groups = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["dependency-groups"]
    pinned = dict(one.split("==") for one in (*groups["run"], *groups["dev"]) if isinstance(one, str))
    server, function = locked("workloads/aws/requirements.txt"), locked("workloads/media/requirements.txt")

    assert server["moto"] == pinned["moto"]
    assert server["docker"] == pinned["docker"]
    assert server["boto3"] == function["boto3"] == pinned["boto3"]
    assert locked("workloads/lambda_runtime/requirements.txt").keys() == {"awslambdaric", "simplejson", "snapshot-restore-py"}


def test_the_media_function_knows_its_names_and_who_it_is():
    account, front, deployment = media("media-function", address="10.0.0.9", keys=("AKIA", "secret"), timeout_s=7)
    pod = deployment["spec"]["template"]["spec"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}

    assert account["metadata"]["name"] == pod["serviceAccountName"]
    assert front["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == {"app": "media-function"}
    assert pod["hostAliases"] == [{"ip": "10.0.0.9", "hostnames": [S3_HOST, LAMBDA_HOST, STRANGER_HOST]}]
    assert json.loads(env["ENDPOINTS"])["s3"] == f"http://{S3_HOST}"
    assert (env["ACCESS_KEY"], env["SECRET_KEY"], env["TIMEOUT_S"]) == ("AKIA", "secret", "7")


def test_the_mesh_leads_every_function_s_name_to_the_one_path_of_the_emulator():
    (service,) = [one for one in load_manifest(FUNCTIONS / "app_mesh.yaml", namespace="ns", **app_mesh()) if one.kind == "VirtualService"]
    (route,) = service.body["spec"]["http"]
    prefix = route["match"][0]["uri"]["prefix"]
    asked = "/2015-03-31/functions/serverless-function/invocations"

    assert asked.startswith(prefix)
    assert route["rewrite"]["uri"] + asked.removeprefix(prefix) == INVOCATIONS

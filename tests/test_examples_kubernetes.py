"""The jobs of examples/kubernetes: their fields are those of the APIs, they agree with each other, and their commands run.

Neither Kubernetes nor its operators run here: what they give to a container is set by hand.
"""

from __future__ import annotations

import configparser
import copy
import re
import shlex

import jsonschema
import pytest
import yaml

from pipeline.build import build, options_for
from tests.kubernetes_schemas import SCHEMAS
from tests.pipeline.build.made import contents
from tests.processes import PATIENCE_S, REPOSITORY
from tests.shared_checkout import Checkout, free_port, ray_cluster

FOLDER = REPOSITORY / "examples" / "kubernetes"
JOBS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
PARTS = 2  # instead of as many as the job has


def pods(value):
    """The specs of all pods of a job."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for below in value.values():
            yield from pods(below)
    elif isinstance(value, list):
        for below in value:
            yield from pods(below)


PODS = [(name, pod) for name, job in JOBS.items() for pod in pods(job)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_fields_are_those_of_the_api(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    jsonschema.validate(JOBS[name], SCHEMAS[name])


def test_every_file_has_a_schema():
    assert set(JOBS) == set(SCHEMAS)
    assert len(PODS) == 4


@pytest.mark.parametrize("change", ["misspelt", "missing", "number", "quantity"])
def test_a_mistake_is_found(change):
    job = copy.deepcopy(JOBS["build-job"])
    spec = job["spec"]
    container = spec["template"]["spec"]["containers"][0]
    if change == "misspelt":
        spec["completion"] = spec.pop("completions")
    elif change == "missing":
        del container["image"]
    elif change == "number":
        container["env"][0]["value"] = 8  # what YAML makes of an unquoted number; Kubernetes refuses it
    else:
        container["resources"]["limits"]["memory"] = "64GB"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMAS["build-job"])


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_what_a_pod_mounts_is_there(name, pod):
    volumes = [volume["name"] for volume in pod["volumes"]]
    mounts = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
    assert sorted(mounts) == sorted(set(volumes)) == sorted(volumes)
    for container in pod["containers"]:
        limits = container["resources"]["limits"]
        assert container["resources"]["requests"] == limits
        assert container["image"] in (FOLDER / "Dockerfile").read_text()


def test_the_image_has_what_the_jobs_need():
    text = (FOLDER / "Dockerfile").read_text()
    extras = re.search(r"'\.\[([a-z,]+)\]'", text)[1].split(",")
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    assert {"ray"} <= set(extras) <= set(settings["options.extras_require"])
    assert f"Python :: {re.search(r'FROM python:(3[.][0-9]+)-slim', text)[1]}" in settings["metadata"]["classifiers"]
    ray = re.search(r"^ray==(.*)$", (REPOSITORY / "constraints.txt").read_text(), re.M)[1]
    assert JOBS["build-rayjob"]["spec"]["rayClusterSpec"]["rayVersion"] == ray


def test_numbers_agree():
    job, training = JOBS["build-job"]["spec"], JOBS["train-pytorchjob"]["spec"]
    assert environment(job)["PARTS"] == str(job["completions"])
    worker = training["pytorchReplicaSpecs"]["Worker"]
    assert training["elasticPolicy"]["maxReplicas"] == worker["replicas"]
    container = worker["template"]["spec"]["containers"][0]
    assert container["name"] == "pytorch"
    assert command(training)[:3] == ["torchrun", "--nproc-per-node", container["resources"]["limits"]["nvidia.com/gpu"]]


def environment(spec):
    (pod,) = pods(spec)
    return {one["name"]: one["value"] for one in pod["containers"][0]["env"]}


def command(spec):
    (pod,) = pods(spec)
    return pod["containers"][0]["command"] + pod["containers"][0]["args"]


@pytest.fixture
def checkout(vggface2, tmp_path):
    return Checkout(tmp_path, vggface2, {})


@pytest.fixture
def expected(vggface2, tmp_path):
    build(options_for("vggface2", root=vggface2, out=tmp_path / "whole", executor="serial", images_per_shard=12))
    return contents(tmp_path / "whole")


@pytest.mark.heavy
def test_an_indexed_job_builds_the_set(checkout, expected):
    spec = JOBS["build-job"]["spec"]
    variables = {**environment(spec), "PARTS": str(PARTS)}
    for index in range(PARTS):
        checkout.run(shlex.join(command(spec)), **variables, JOB_COMPLETION_INDEX=str(index))
    assert contents(checkout.shared / "lrfr" / "shards") == expected


@pytest.mark.heavy
def test_a_ray_job_builds_the_set(checkout, expected):
    """The entry point runs beside the head of a cluster, with the address that ``ray job submit`` sets."""
    spec = JOBS["build-rayjob"]["spec"]
    head = next(pods(spec["rayClusterSpec"]["headGroupSpec"]))["containers"][0]
    variables = {one["name"]: one["value"] for one in head["env"]}
    with ray_cluster("ray start --head --port 6379 --disable-usage-stats", []) as (found, address):
        _, stderr = checkout.run(spec["entrypoint"], **variables, **found, RAY_ADDRESS=address)
    assert "done: 45 images" in stderr
    assert contents(checkout.shared / "lrfr" / "shards") == expected


@pytest.mark.heavy
def test_a_pytorch_job_trains_on_two_machines(checkout, vggface2):
    data = checkout.shared / "lrfr"
    build(options_for("vggface2", root=vggface2, out=data / "shards", executor="serial", images_per_shard=12))
    spec = JOBS["train-pytorchjob"]["spec"]
    policy, replicas = spec["elasticPolicy"], spec["pytorchReplicaSpecs"]["Worker"]["replicas"]
    given = {  # by the operator
        "PET_RDZV_BACKEND": policy["rdzvBackend"],
        "PET_RDZV_ENDPOINT": f"localhost:{free_port()}",
        "PET_RDZV_ID": "lrfr-train",
        "PET_NNODES": f"{replicas}:{policy['maxReplicas']}",  # not fewer, so that both are waited for
        "PET_MAX_RESTARTS": "0",  # a mistake ends the test
    }
    words = ["1" if word == "8" else word for word in command(spec)]  # one process a machine, not one a GPU
    machines = [checkout.start(shlex.join(words), **environment(spec), **given) for _ in range(replicas)]
    ends = [machine.communicate(timeout=PATIENCE_S) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ends
    assert (data / "runs" / "first" / "checkpoints" / "0000002.pt").is_file()

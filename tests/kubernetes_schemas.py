"""The fields that examples/kubernetes uses, as the APIs declare them; any other field is a mistake.

Sources: Kubernetes' API reference (core/v1, batch/v1), KubeRay's (ray.io/v1), and that of Kubeflow's training operator
(kubeflow.org/v1).
"""

from __future__ import annotations


def fields(required=(), **properties):
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
        "minProperties": 1,
    }


def listed(items):
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
COUNT = {"type": "integer", "minimum": 0}
SOME = {"type": "integer", "minimum": 1}
QUANTITY = {"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|m)?$"}
AMOUNTS = fields(cpu=QUANTITY, memory=QUANTITY, **{"nvidia.com/gpu": QUANTITY})
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
CONTAINER = fields(
    ["name", "image"],
    name=NAME,
    image=TEXT,
    command=listed(TEXT),
    args=listed(TEXT),
    env=listed(fields(["name", "value"], name=TEXT, value={"type": "string"})),
    resources=fields(requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=listed(fields(["name", "mountPath"], name=NAME, mountPath={"type": "string", "pattern": "^/"})),
)
VOLUME = {
    "oneOf": [
        fields(
            ["name", "persistentVolumeClaim"], name=NAME, persistentVolumeClaim=fields(["claimName"], claimName=NAME)
        ),
        fields(["name", "emptyDir"], name=NAME, emptyDir=fields(medium={"const": "Memory"})),
    ]
}
POD = fields(
    ["spec"],
    spec=fields(
        ["containers"],
        containers=listed(CONTAINER),
        volumes=listed(VOLUME),
        restartPolicy={"enum": ["Never", "OnFailure"]},
        terminationGracePeriodSeconds=COUNT,
    ),
)
HEAD = fields(["rayStartParams", "template"], rayStartParams=PARAMETERS, template=POD)
WORKERS = fields(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=SOME,
    rayStartParams=PARAMETERS,
    template=POD,
)
RAY_JOB = fields(
    ["entrypoint", "rayClusterSpec"],
    entrypoint=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=fields(["headGroupSpec"], rayVersion=TEXT, headGroupSpec=HEAD, workerGroupSpecs=listed(WORKERS)),
)
JOB = fields(
    ["template"],
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    completions=SOME,
    parallelism=SOME,
    backoffLimitPerIndex=COUNT,
    ttlSecondsAfterFinished=COUNT,
    template=POD,
)
REPLICAS = fields(
    ["replicas", "template"],
    replicas=SOME,
    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
    template=POD,
)
PYTORCH_JOB = fields(
    ["pytorchReplicaSpecs"],
    runPolicy=fields(cleanPodPolicy={"enum": ["All", "Running", "None"]}),
    elasticPolicy=fields(
        rdzvBackend={"enum": ["c10d", "etcd", "etcd-v2"]}, minReplicas=SOME, maxReplicas=SOME, maxRestarts=COUNT
    ),
    pytorchReplicaSpecs=fields(Master=REPLICAS, Worker=REPLICAS),
)


def resource(api, kind, spec):
    """A resource of this kind."""
    return fields(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": api},
        kind={"const": kind},
        metadata=fields(["name"], name=NAME),
        spec=spec,
    )


SCHEMAS = {
    "build-rayjob": resource("ray.io/v1", "RayJob", RAY_JOB),
    "build-job": resource("batch/v1", "Job", JOB),
    "train-pytorchjob": resource("kubeflow.org/v1", "PyTorchJob", PYTORCH_JOB),
}

"""The fields of KubeRay's resources that its API reference lists (ray.io/v1, release 1.7).

KubeRay's own CRDs hold the whole schema of a pod and are in no Python package; pods are checked
against Kubernetes' own models in the test.
"""

from typing import Any

POD = "pod"
"""A PodTemplateSpec of Kubernetes."""
STRINGS = "strings"
"""An object whose values are strings."""
ANY = "any"
"""What these files do not use, and is not looked into."""

AUTOSCALER = {
    "resources": ANY,
    "image": str,
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "securityContext": ANY,
    "idleTimeoutSeconds": int,
    "upscalingMode": {"Default", "Aggressive", "Conservative"},
    "version": {"v1", "v2"},
    "env": ANY,
    "envFrom": ANY,
    "volumeMounts": ANY,
    "command": ANY,
    "args": ANY,
}
GROUP = {"resources": STRINGS, "labels": STRINGS, "rayStartParams": STRINGS, "template": POD}
HEAD = GROUP | {
    "headService": ANY,
    "enableIngress": bool,
    "ingressOptions": ANY,
    "serviceType": str,
}
WORKERS = GROUP | {
    "suspend": bool,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    "priority": int,
    "scaleStrategy": ANY,
    "numOfHosts": int,
}
RAY_CLUSTER: dict[str, Any] = {
    "upgradeStrategy": ANY,
    "authOptions": {"enableK8sTokenAuth": bool, "secretName": str, "mode": {"disabled", "token"}},
    "suspend": bool,
    "managedBy": str,
    "autoscalerOptions": AUTOSCALER,
    "headServiceAnnotations": STRINGS,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": ANY,
    "historyServerOptions": ANY,
    "networkPolicy": ANY,
    "tlsOptions": ANY,
    "headGroupSpec": HEAD,
    "rayVersion": str,
    "workerGroupSpecs": [WORKERS],
}
RAY_JOB: dict[str, Any] = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "rayClusterSpec": RAY_CLUSTER,
    "submitterPodTemplate": POD,
    "metadata": STRINGS,
    "clusterSelector": STRINGS,
    "submitterConfig": {"backoffLimit": int},
    "managedBy": str,
    "deletionStrategy": ANY,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
    "entrypointResources": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "ttlSecondsAfterFinished": int,
    "preRunningDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "suspend": bool,
}
KINDS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}


def problems(value: Any, kind: Any, at: str = "spec") -> list[str]:
    """What is wrong with a value, each with its place; pods are the caller's."""
    if kind in (ANY, POD):
        return []
    if kind == STRINGS:
        kind = dict.fromkeys(value, str) if isinstance(value, dict) else {}
    if isinstance(kind, set):
        return [] if value in kind else [f"{at}: {value!r} is none of {sorted(kind)}"]
    expected = kind if isinstance(kind, type) else type(kind)
    is_other = type(value) is not expected  # True is no number here
    if is_other:
        return [f"{at}: {value!r} is no {expected.__name__}"]
    if isinstance(kind, list):
        return [p for n, item in enumerate(value) for p in problems(item, kind[0], f"{at}[{n}]")]
    if isinstance(kind, dict):
        return [p for name in value for p in _field_problems(value[name], kind, name, at)]
    return []


def _field_problems(value: Any, fields: dict[str, Any], name: str, at: str) -> list[str]:
    place = f"{at}.{name}"
    return problems(value, fields[name], place) if name in fields else [f"{place}: no such field"]

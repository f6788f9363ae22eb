"""The manifests for KubeRay as `kubectl apply -k` sends them: fields, pods, sizes and jobs."""

import copy
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from lightkube.models.core_v1 import PersistentVolumeClaim, PodTemplateSpec
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from crane_ray.cli.submission import JOBS
from crane_ray.config import Config
from crane_ray.runtime.jobs import ExtractJob
from tests.unit.cluster.files import CLUSTER, image_tag, load, size
from tests.unit.cluster.kuberay_fields import KINDS, problems

FOLDER = CLUSTER / "kuberay"
JOB_FOLDERS = ("demo", "patch", "extract", "train", "tune")
GROUPS = ("head", "gpu", "cpu")


def rendered(folder: str) -> dict[str, Any]:
    """The resources of a folder by kind, as kubectl renders them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it puts the manifests together")
    words = ["kubectl", "kustomize", str(FOLDER / folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    assert len({one["kind"] for one in resources}) == len(resources)
    return {one["kind"]: one for one in resources}


def cluster() -> dict[str, Any]:
    """The cluster that every job copies."""
    found: dict[str, Any] = load("kuberay", "base", "raycluster.yaml")
    return found


def templates(spec: dict[str, Any]) -> dict[str, Any]:
    """The pod template of each group."""
    workers = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    return {name: group["template"] for name, group in groups(spec, workers).items()}


def groups(spec: dict[str, Any], workers: dict[str, Any] | None = None) -> dict[str, Any]:
    """The groups of pods by name."""
    workers = workers or {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"], **workers}


def pod_problems(template: dict[str, Any]) -> str:
    """What Kubernetes' own model does not know, or is of another type; empty where all is well."""
    try:
        known = PodTemplateSpec.from_dict(template).to_dict()
    except ValueError as error:
        return str(error)
    return "" if known == template else f"{template} is read as {known}"


def test_the_cluster_has_kuberays_fields_and_kubernetes_pods() -> None:
    resource = cluster()
    assert resource["apiVersion"] == "ray.io/v1"
    assert problems(resource["spec"], KINDS[resource["kind"]]) == []
    assert set(templates(resource["spec"])) == set(GROUPS)
    for template in templates(resource["spec"]).values():
        assert pod_problems(template) == ""


def test_mistakes_would_be_found() -> None:
    spec = copy.deepcopy(cluster()["spec"])
    spec["rayversion"] = "2.60.0"
    spec["workerGroupSpecs"][0]["minReplicas"] = "0"
    spec["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"] = 8
    spec["authOptions"]["mode"] = "tokens"
    assert len(problems(spec, KINDS["RayCluster"])) == 4
    template = templates(spec)["gpu"]
    template["spec"]["containers"][0]["volumemounts"] = []
    assert "volumemounts" in pod_problems(template)
    template = templates(spec)["head"]
    template["spec"]["containers"][0]["env"] = [{"name": "ONE", "value": 1}]
    assert "Expected `str | null`" in pod_problems(template)


def test_ray_reads_the_groups_as_they_are_meant() -> None:
    resource = cluster()
    resource["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(resource)  # as Ray's autoscaler does; validates
    types = config["available_node_types"]
    resources = {name: kind["resources"] for name, kind in types.items()}
    assert resources["headgroup"]["CPU"] == 0
    assert (resources["gpu"]["GPU"], resources["gpu"]["CPU"]) == (1, 8)
    assert "GPU" not in resources["cpu"]
    assert types["cpu"]["min_workers"] >= 1, "patching plans by the nodes that it sees"
    assert types["gpu"]["min_workers"] == 0 < types["gpu"]["max_workers"]


@pytest.mark.parametrize("name", GROUPS)
def test_shared_memory_holds_rays_objects_and_fits_the_pod(name: str) -> None:
    group = groups(cluster()["spec"])[name]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["medium"] == "Memory"
    objects = size(group["rayStartParams"]["object-store-memory"])
    assert objects < size(shm["sizeLimit"]) < size(container["resources"]["limits"]["memory"]) / 2
    assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", GROUPS)
def test_every_pod_sees_storage_the_same_way(name: str) -> None:
    pod = templates(cluster()["spec"])[name]["spec"]
    (container,) = pod["containers"]
    claim = load("kuberay", "volume.yaml")
    assert PersistentVolumeClaim.from_dict(claim).to_dict() == claim
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["shared"] == "/shared"
    env = {one["name"]: one["value"] for one in container["env"]}
    assert env["CRANE_RAY_CACHE"] == mounts["cache"]
    assert container["envFrom"] == [
        {"secretRef": {"name": "crane-ray-object-store", "optional": True}}
    ]


def test_one_place_names_the_image_and_it_has_the_ray_of_the_manifest() -> None:
    (image,) = load("kuberay", "base", "kustomization.yaml")["images"]
    spec = rendered("base")["RayCluster"]["spec"]
    images = {pod["spec"]["containers"][0]["image"] for pod in templates(spec).values()}
    assert images == {f"{image['newName']}:{image['newTag']}"}
    assert image["newTag"] == spec["rayVersion"] == image_tag()


@pytest.mark.parametrize("folder", JOB_FOLDERS)
def test_a_job_is_its_verb_on_a_copy_of_the_cluster(folder: str) -> None:
    resources = rendered(folder)
    assert set(resources) == {"RayJob", "ConfigMap"}, "no volume that goes with the job"
    job = resources["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert problems(job["spec"], KINDS["RayJob"]) == []
    for template in templates(job["spec"]["rayClusterSpec"]).values():
        assert pod_problems(template) == ""
    name = job["metadata"]["name"]
    assert name == resources["ConfigMap"]["metadata"]["name"] == f"crane-ray-{folder}"
    expected = rendered("base")["RayCluster"]["spec"]
    volumes = expected["headGroupSpec"]["template"]["spec"]["volumes"]
    (config,) = [volume["configMap"] for volume in volumes if volume["name"] == "config"]
    config["name"] = name
    assert job["spec"]["rayClusterSpec"] == expected
    assert job["spec"]["backoffLimit"] > 0, "a lost head is no lost job"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["entrypoint"] == f"crane-ray {folder} --config /etc/crane-ray/config.yaml"
    assert set(resources["ConfigMap"]["data"]) == {"config.yaml"}


@pytest.mark.parametrize("folder", JOB_FOLDERS)
def test_the_config_of_a_job_is_one_of_its_verb(folder: str) -> None:
    from crane_ray.cli.demo import DemoJob

    kind: type[Config] = DemoJob if folder == "demo" else JOBS[folder]
    job = kind.load(FOLDER / folder / "config.yaml")
    gpu = groups(cluster()["spec"])["gpu"]
    if isinstance(job, ExtractJob):
        assert job.actors.count is not None, "the GPU nodes come once somebody asks for them"
        assert job.actors.count <= gpu["maxReplicas"]
        assert job.actors.gpus == 1
        limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert job.actors.cpus is not None
        assert job.actors.cpus < int(limits["cpu"])
    if folder in {"train", "tune"}:
        tree = job.model_dump()
        assert tree["workers"]["gpus"] > 0
        assert tree["resume"] is True, "a job that is tried again goes on"

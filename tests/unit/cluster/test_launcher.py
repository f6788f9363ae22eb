"""The files of Ray's cluster launcher, checked by Ray itself, and on a simulated EC2."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.cluster.files import CLUSTER, image_tag, load, size

CLOUDS = ("aws", "gcp")
LAUNCHED = (*CLOUDS, "onprem")


def prepared(text: str) -> dict[str, Any]:
    """A file as `ray up` reads it: Ray's defaults filled in, validated by Ray's schema."""
    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config


def read(folder: str) -> str:
    return (CLUSTER / folder / "cluster.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", LAUNCHED)
def test_ray_accepts_the_file(folder: str) -> None:
    config = prepared(read(folder))
    commands = config["setup_commands"] + config["worker_setup_commands"]
    assert commands == [], "Ray's default installs a development build of Ray"


@pytest.mark.parametrize("folder", LAUNCHED)
def test_a_mistake_would_be_found(folder: str) -> None:
    with pytest.raises(Exception, match="upscaling_sped"):
        prepared(read(folder).replace("upscaling_speed", "upscaling_sped"))


@pytest.mark.parametrize("folder", LAUNCHED)
def test_the_token_is_on_every_node_and_asked_for(folder: str) -> None:
    config = load(folder, "cluster.yaml")
    (home,) = config["file_mounts"]
    assert config["file_mounts"][home] == "~/.ray"
    assert home == ("/home/crane-ray/.ray" if folder == "onprem" else "/home/ray/.ray")
    if folder in CLOUDS:
        assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    else:
        starts = [config["head_start_ray_commands"][1], config["worker_start_ray_commands"][1]]
        assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)


@pytest.mark.parametrize("folder", CLOUDS)
def test_clouds_run_the_image_with_enough_shared_memory(folder: str) -> None:
    config = load(folder, "cluster.yaml")
    assert config["docker"]["image"].split(":")[1] == image_tag()
    (shm,) = [one for one in config["docker"]["run_options"] if one.startswith("--shm-size=")]
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    words = [word for command in commands for word in command.split()]
    objects = [word.split("=")[1] for word in words if word.startswith("--object-store-memory=")]
    assert len(objects) == 2
    assert max(map(size, objects)) < size(shm.split("=")[1])


@pytest.mark.parametrize("folder", CLOUDS)
def test_clouds_keep_the_driver_off_machines_that_are_taken_away(folder: str) -> None:
    types = load(folder, "cluster.yaml")["available_node_types"]
    spot = {
        name
        for name, kind in types.items()
        if "InstanceMarketOptions" in kind["node_config"]
        or kind["node_config"].get("scheduling", {}).get("preemptible")
    }
    assert spot == {"gpu", "cpu"}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["cpu"]["min_workers"] >= 1, "patching plans by the nodes that it sees"


def test_on_premises_every_machine_is_used() -> None:
    config = prepared(read("onprem"))
    (kind,) = config["available_node_types"].values()
    workers = config["provider"]["worker_ips"]
    assert kind["min_workers"] == kind["max_workers"] == len(workers) > 1
    assert config["provider"]["head_ip"] not in workers


@pytest.fixture
def simulated_ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Credentials of nobody, a home for the key pair, and the region of the shipped file."""
    region = str(load("aws", "cluster.yaml")["provider"]["region"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("HOME", str(tmp_path))
    return region


def test_ec2_would_start_a_machine_of_each_kind(simulated_ec2: str) -> None:
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    with mock_aws():
        ec2 = boto3.client("ec2")
        boto3.client("iam").create_instance_profile(InstanceProfileName="crane-ray")
        ami = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        config = bootstrap_aws(prepared(read("aws").replace("ami-00000000000000000", ami)))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, kind in config["available_node_types"].items():
            provider.create_node(dict(kind["node_config"]), {"ray-user-node-type": name}, 1)
        found = [one["Instances"][0] for one in ec2.describe_instances()["Reservations"]]
    started = {one["InstanceType"]: one.get("InstanceLifecycle") for one in found}
    assert started == {"m6i.xlarge": None, "g6.2xlarge": "spot", "c6i.2xlarge": "spot"}
    assert {one["ImageId"] for one in found} == {ami}


def test_compute_engine_gets_fields_of_its_own() -> None:
    """No simulation of Compute Engine is at hand: the shape of what is sent is checked alone."""
    cluster = load("gcp", "cluster.yaml")
    for name, kind in cluster["available_node_types"].items():
        config = kind["node_config"]
        for account in config.get("serviceAccounts", ()):
            assert account["email"].endswith(
                f"@{cluster['provider']['project_id']}.iam.gserviceaccount.com"
            )
            assert account["scopes"] == ["https://www.googleapis.com/auth/cloud-platform"]
        assert ("serviceAccounts" in config) is (name != "head"), "Ray gives the head its own"
        known = {"machineType", "disks", "serviceAccounts", "metadata", "scheduling"}
        assert config.keys() <= known
        (disk,) = config["disks"]
        assert disk["boot"] is True
        image = disk["initializeParams"]["sourceImage"]
        assert image.startswith("projects/")
        assert "/global/images/family/" in image
        if "GPU" in kind["resources"]:
            assert config["scheduling"]["onHostMaintenance"] == "TERMINATE"

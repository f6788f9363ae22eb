"""The metrics' names and tags, that they never cost a run, and what workers count."""

import pickle
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.util.metrics import Counter

from crane_ray import retries
from crane_ray.features.clock import Shares
from crane_ray.features.ledger import Receipt
from crane_ray.logs import in_run, run_fields
from crane_ray.runtime import metrics, worker_metrics
from crane_ray.runtime.metrics import METRICS
from crane_ray.runtime.patching import plan_task
from crane_ray.slides.staging import StagingConfig
from tests.unit.runtime.recorded_metrics import Recorded


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    found = Recorded()
    for name in ("count", "expect", "show", "hide"):
        monkeypatch.setattr(metrics, name, getattr(found, name))
    return found


def test_names_are_as_prometheus_has_them_and_tags_are_few() -> None:
    assert len(METRICS) > 20
    for metric in METRICS.values():
        assert metric.name.startswith("crane_ray_")
        assert not metric.name.endswith("_total"), "Prometheus adds it to counters"
        assert metric.exported.endswith("_total") == (metric.kind == "counter")
        assert set(metric.tags) <= {
            "encoder", "status", "state", "verb", "run", "seed", "fold", "part"
        }  # fmt: skip
        assert metric.words.endswith(".")


def test_without_a_ray_nothing_happens() -> None:
    metrics.count(metrics.PATCHES, 1, encoder="any")
    metrics.show(metrics.SLIDES_LEFT, 1, verb="test")
    metrics.hide(metrics.SLIDES_LEFT, verb="test")


def test_a_metric_that_cannot_be_recorded_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Broken(Counter):  # type: ignore[misc]
        def _record(self, value: float, tags: dict[str, str] | None = None) -> None:
            told.append(value)
            raise RuntimeError("no agent")

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(metrics, "_instrument", lambda metric: Broken(metric.name))
    metrics.count(metrics.STORAGE_RETRIES, 2)
    metrics.count(metrics.STORAGE_RETRIES, 0)
    assert told == [2]
    metrics.count(metrics.STORAGE_RETRIES, 1, no_such_tag="x")


def test_a_gauge_is_told_again_until_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(
        metrics, "_record", lambda metric, value, tags: told.append((tags["verb"], value()))
    )
    shown = metrics._Shown()
    monkeypatch.setattr(shown, "_begin", lambda: None)
    left = [3]
    shown.put(metrics.SLIDES_LEFT, lambda: left[0], {"verb": "test"})
    assert told == [], "whoever shows it does not wait for the answer"
    shown.refresh()
    left[0] = 2
    shown.refresh()
    shown.drop(metrics.SLIDES_LEFT, {"verb": "test"})
    shown.refresh()
    assert told == [("test", 3), ("test", 2)]


def test_storage_that_is_asked_again_is_counted_once(recorded: Recorded) -> None:
    process = worker_metrics._Process()
    process.tell()
    before = recorded.sum(metrics.STORAGE_RETRIES)
    errors = [ConnectionError("reset"), None]

    def action() -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "WAITS_S", (0.0,))
        retries.retrying(action)
    process.tell()
    process.tell()
    assert recorded.sum(metrics.STORAGE_RETRIES) == before + 1


def test_staging_is_told_as_it_grows(recorded: Recorded, tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"x" * 1000)
    config = StagingConfig(local=True, folder=str(tmp_path / "cache"), max_gb=1)
    process = worker_metrics._Process()
    process.tell()
    cache = config.open_cache()
    names = (metrics.STAGED_BYTES, metrics.STAGED_SLIDES, metrics.CACHE_LEASES)
    process.tell()
    before = [recorded.sum(name) for name in names]
    for _ in range(2):
        cache.lease(str(slide)).close()
        process.tell()
    assert [recorded.sum(name) - old for name, old in zip(names, before, strict=True)] == [
        1000, 1, 2,
    ]  # fmt: skip
    assert recorded.now(metrics.CACHE_BYTES) == 1000
    assert recorded.now(metrics.CACHE_LIMIT_BYTES) == cache.folder.max_bytes
    assert (recorded.now(metrics.CACHE_FREE_BYTES) or 0) > 0


def test_what_takes_work_is_found_seldom() -> None:
    found = iter((1.0, 2.0))
    seldom = worker_metrics.Seldom(lambda: next(found), every_s=3600)
    assert [seldom(), seldom()] == [1.0, 1.0]
    always = worker_metrics.Seldom(lambda: next(found), every_s=0)
    assert always() == 2.0


def test_receipts_count_by_encoder_and_status_and_every_state_has_its_seconds(
    recorded: Recorded,
) -> None:
    shares = Shares(1.0, 2.0, 3.0, 4.0, 5.0)
    ok = Receipt("a", 0, "ok", 10, "", **shares.rounded())
    bad = Receipt("b", 0, "error", 10, "")
    rows = [{**vars_of(ok), "output": 0}, {**vars_of(bad), "output": 1}]
    worker_metrics.count_receipts(rows, ["one", "two"])
    assert recorded.sum(metrics.SHARDS, "one", "ok") == 1
    assert recorded.sum(metrics.SHARDS, "two", "error") == 1
    seconds = {
        state: recorded.sum(metrics.ENCODER_SECONDS, state)
        for state in ("decode_wait", "encode", "write_wait", "staging_wait", "idle")
    }
    assert list(seconds.values()) == [1, 2, 3, 4, 5]
    assert sum(seconds.values()) == sum(recorded.counters.values()) - 2


def vars_of(receipt: Receipt) -> dict[str, object]:
    return {name: getattr(receipt, name) for name in Receipt.__slots__}


def test_a_measured_task_keeps_its_name_and_travels(recorded: Recorded) -> None:
    task = worker_metrics.measured_task(plan_task)
    assert task.__name__ == "plan_task", "Ray's dashboard and logs name tasks by it"
    assert pickle.loads(cloudpickle.dumps(task)).__name__ == "plan_task"

    with in_run(run_id="this"):
        asks = worker_metrics.measured_task(run_fields)
    with in_run(run_id="that"):
        assert asks()["run_id"] == "this"
        assert run_fields()["run_id"] == "that"

    def failing() -> None:
        raise ValueError("of the task")

    with pytest.raises(ValueError, match="of the task"):
        worker_metrics.measured_task(failing)()

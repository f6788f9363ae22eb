from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crane_ray.cohort.cohort import read_cohort
from crane_ray.cohort.tasks import MISSING, TaskSet
from crane_ray.mil.bags import Bag, BagReader, labels_tensor, make_bags
from crane_ray.mil.pack import Pack
from tests.unit.mil.small_bags import DIM, TASKS, make_bag_set, make_pack

TABLE = """case_id,slide_id,a,b
q,s3,c1,
p,s1,c0,c2
p,s2.svs,c1,c1
"""


def test_bags_are_slides_in_the_tables_order_or_cases_in_their_own(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(TABLE)
    cohort = read_cohort(str(table), TaskSet(name="t", tasks=TASKS))
    assert make_bags(cohort) == (
        Bag("s3", "q", ("s3",), (1, MISSING)),
        Bag("s1", "p", ("s1",), (0, 2)),
        Bag("s2", "p", ("s2",), (1, 1)),
    )
    assert make_bags(cohort, "case") == (
        Bag("p", "p", ("s1", "s2"), (1, 2)),
        Bag("q", "q", ("s3",), (1, MISSING)),
    )
    assert labels_tensor(make_bags(cohort, "case")).tolist() == [[1, 2], [1, MISSING]]
    assert labels_tensor(make_bags(cohort)).dtype == torch.int64


def test_a_cases_bag_has_the_patches_of_its_slides_one_after_the_other() -> None:
    pack = make_pack(make_bag_set())
    reader = BagReader(pack)
    bag = Bag("p", "p", ("s03", "s01"), (0, 0))
    expected = np.concatenate([pack.read("s03"), pack.read("s01")])
    assert np.array_equal(reader.read(bag).numpy(), expected)
    assert reader.num_patches(bag) == len(expected)


@pytest.mark.parametrize("stored", [np.float16, np.float32])
@pytest.mark.parametrize("resident", [0, 200, 10**6])
def test_what_stays_on_the_device_is_what_is_read(stored: type, resident: int) -> None:
    bags = make_bag_set()
    pack = make_pack(bags, stored)
    plain, held = (
        BagReader(pack, max_patches=4),
        BagReader(pack, max_patches=4, resident_bytes=resident),
    )
    for epoch in (0, 0, 1):
        for bag in bags:
            assert torch.equal(plain.read(bag), held.read(bag))
            assert held.read(bag).dtype == torch.float32
            one, two = (reader.sample(bag, seed=1, epoch=epoch) for reader in (plain, held))
            assert torch.equal(one, two)
    kept = sum(values.nbytes for values in held._resident.values())
    assert kept <= resident
    assert (kept > 0) == (resident > 0)


def large_bag(num_patches: int = 200) -> tuple[Bag, Pack]:
    rows = np.arange(num_patches * DIM, dtype=np.float32).reshape(num_patches, DIM)
    return Bag("x", "x", ("x",), (0,)), Pack(rows, {"x": (0, num_patches)}, ())


def test_some_patches_of_a_large_bag_are_others_in_every_epoch() -> None:
    bag, pack = large_bag()
    reader = BagReader(pack, max_patches=50)
    seen = [reader.sample(bag, seed=1, epoch=epoch)[:, 0].tolist() for epoch in range(20)]
    for places in seen:
        assert len(set(places)) == 50
        assert places == sorted(places)
    assert len({tuple(places) for places in seen}) == 20
    assert len({place for places in seen for place in places}) > 190
    again = BagReader(pack, max_patches=50).sample(bag, seed=1, epoch=7)[:, 0].tolist()
    assert again == seen[7]
    assert reader.sample(bag, seed=2, epoch=7)[:, 0].tolist() != seen[7]
    other = replace(bag, bag_id="y")
    assert reader.sample(other, seed=1, epoch=7)[:, 0].tolist() != seen[7]


@pytest.mark.parametrize("max_patches", [None, 200, 201])
def test_small_bags_are_seen_whole(max_patches: int | None) -> None:
    bag, pack = large_bag()
    reader = BagReader(pack, max_patches=max_patches)
    assert torch.equal(reader.sample(bag, seed=0, epoch=0), reader.read(bag))


def test_whole_bags_are_read_whatever_training_samples() -> None:
    bag, pack = large_bag()
    assert len(BagReader(pack, max_patches=3).read(bag)) == 200


def test_features_come_in_the_type_that_is_asked_for() -> None:
    bag, pack = large_bag()
    reader = BagReader(pack, dtype=torch.bfloat16, max_patches=5)
    assert reader.read(bag).dtype == torch.bfloat16
    assert reader.sample(bag, seed=0, epoch=0).dtype == torch.bfloat16

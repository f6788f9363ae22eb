from hypothesis import given
from hypothesis import strategies as st

from crane_ray.search.wording import objective_text, short_names


def test_objectives_have_four_decimals_where_those_say_something() -> None:
    assert [objective_text(value) for value in (0.87654, -0.5, -0.0, 12.3, 3e-5, 12345.0)] == [
        "0.8765", "-0.5000", "0.0000", "12.3000", "3e-5", "12345",
    ]  # fmt: skip


PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "rank"]), min_size=1, max_size=4).map(".".join),
    unique=True,
)


@given(PATHS)
def test_short_names_are_one_paths_only_and_not_taken(paths: list[str]) -> None:
    names = short_names(paths, taken=("rank",))
    assert list(names) == paths
    assert len(set(names.values())) == len(paths)
    assert "rank" not in names.values()


def test_short_names_say_of_what_they_are() -> None:
    paths = ("model.name", "stores.model.name", "trainer.optim.lr")
    assert list(short_names(paths).values()) == ["model.name", "stores.model.name", "optim.lr"]

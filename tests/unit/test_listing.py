import pytest

from nightcap.listing import first_of


@pytest.mark.parametrize(
    ("names", "said"),
    [([], ""), (["a"], "a"), (["b", "a"], "b, a"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_the_first_are_named_and_the_others_counted(names: list[str], said: str) -> None:
    assert first_of(names, 2) == said

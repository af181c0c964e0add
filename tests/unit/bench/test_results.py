"""What is made of measured values: medians, ratios, the table."""

import json
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import table
from bench.result import Result, alone, paired, quantile


def _paired(ours: list[float], peer: list[float], most: float = 1.0) -> Result:
    return paired(
        "capture-cpu-plain", ours, peer, peer_name="tcpdump -w", most=most, goal="≤ 1", unit="s"
    )


def test_ratio_is_of_pairs_and_not_of_medians() -> None:
    """A round that is slow for both must not count."""
    result = _paired([1.0, 8.0, 1.2], [2.0, 10.0, 1.0])
    assert (result.ours, result.peer, result.ratio) == (1.2, 2.0, 0.8)
    assert result.met
    assert result.spread == (1.0, 8.0)


def test_goal_is_missed_above_its_ceiling() -> None:
    assert not _paired([1.1], [1.0]).met
    assert not alone("wake-latency", [59, 61, 62], most=60, goal="≤ 60 ms", unit="ms").met


def test_engines_must_have_run_in_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        _paired([1.0, 2.0], [1.0])


def test_quantile_is_one_of_the_samples() -> None:
    samples = [float(number) for number in range(1, 101)]
    assert quantile(samples, 0.95) == 95
    assert quantile([7.0], 0.95) == 7


def test_line_has_what_the_design_names() -> None:
    value = json.loads(_paired([1.0], [2.0]).line())
    wanted = {"name", "ours", "peer", "peer_name", "ratio", "unit", "goal", "runs", "machine"}
    assert wanted <= set(value)


def test_table_goes_into_its_page_and_nothing_else_changes(tmp_path: Path) -> None:
    results, page = tmp_path / "one.jsonl", tmp_path / "README.md"
    results.write_text(_paired([3.0], [2.0]).line() + "\n")
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.put_into(page, table.render(table.read([results])))
    text = page.read_text()
    assert "| `capture-cpu-plain` | 3 s; n = 1 | 2 `tcpdump -w` | 1.50 | ≤ 1 | **no** |" in text
    assert text.startswith("before\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    page.write_text("no place")
    with pytest.raises(ValueError, match="needs the lines"):
        table.put_into(page, "")


def test_names_are_found_and_a_wrong_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"dormant-memory", "wake-latency", "rotation-loss"} <= set(command.names())
    with pytest.raises(SystemExit):
        command.main(["wake-latancy"])
    assert "no benchmark wake-latancy; there are" in capsys.readouterr().err


def test_pages_show_the_results_that_are_kept() -> None:
    """Results without their table, or a table without its results: python -m bench --readme."""
    kept = table.render(table.read(sorted(command.RESULTS.glob("*.jsonl"))))
    for page in command.PAGES:
        assert f"{table.BEGIN}\n{kept}\n{table.END}" in page.read_text(), page.name

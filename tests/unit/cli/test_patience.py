"""`doctor` where the API server is away, silent or slow: it says so, and ends."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from nightcap.cli.doctor import examine
from nightcap.cli.patience import patiently, until_well
from nightcap.cli.session import Session
from nightcap.cli.words import Line, Mark
from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.kube.small_api import SmallApi, a_kubeconfig


def test_server_that_is_away_is_one_fault_for_people_and_programs(
    api: SmallApi, nightcap: Run
) -> None:
    api.close()
    ran = nightcap("doctor")
    assert ran.code == 1
    first, advice = ran.out.splitlines()
    assert first.startswith("fault  the API server did not answer: ")
    assert "--context" in advice
    (said,) = json.loads(nightcap("doctor", "-o", "json").out)
    assert said["mark"] == "fault"


def test_server_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = tmp_path / "kubeconfig"
        file.write_text(a_kubeconfig(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        session = Session(str(file))
        (line,) = patiently(session, examine(session, 0), answer_seconds=0.2)
        session.close()
    assert line.mark is Mark.FAULT
    assert "did not answer: nothing came for 0.2 s" in line.text


def test_waiting_ends_when_nothing_is_a_fault_any_more() -> None:
    marks = iter([Mark.FAULT, Mark.FAULT, Mark.NOTE])
    (line,) = until_well(lambda: [Line(next(marks), "it")], 60, 0)
    assert line.mark is Mark.NOTE


def test_waiting_is_over_in_time(nightcap: Run, api: SmallApi) -> None:
    api.close()
    ran = nightcap("doctor", "--wait", "1ms")
    assert (ran.code, ran.out[:5]) == (1, "fault")
    assert "'soon': write a positive number" in nightcap("doctor", "--wait", "soon").err
    assert nightcap("doctor", "--wait", "1m", "--rescue").code == 2


def test_slow_server_is_told_and_left(api: SmallApi, kubeconfig: Path) -> None:
    api.put(paths.VERSION, major="1", minor="35", gitVersion="v1.35.4")
    session = Session(str(kubeconfig))
    first, last = patiently(session, examine(session, 0), most_seconds=0)
    session.close()
    assert first.text == "the API server answers (Kubernetes v1.35.4)"
    assert "is slow: after 0 s the rest was left out" in last.text

from pathlib import Path

from tests.cluster import cgroups

VERSION_1 = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
VERSION_2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


def test_version_1_hierarchies_win_over_a_version_2_beside_them() -> None:
    assert cgroups.hierarchies(VERSION_1) == [
        Path("/sys/fs/cgroup/cpu"),
        Path("/sys/fs/cgroup/memory"),
    ]
    assert cgroups.hierarchies(VERSION_2) == [Path("/sys/fs/cgroup")]


def test_leftovers_are_looked_for_in_every_hierarchy() -> None:
    assert Path("/sys/fs/cgroup/unified") in cgroups.all_hierarchies(VERSION_1)


def test_groups_come_deepest_first_with_the_processes_of_all(tmp_path: Path) -> None:
    for name, members in {"ours": "", "ours/pods": "7\n8\n", "ours/pods/a": "9\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text(members)
    (tmp_path / "theirs").mkdir()
    found = cgroups.groups_below("ours", [tmp_path])
    assert [str(group.relative_to(tmp_path)) for group in found] == [
        "ours/pods/a",
        "ours/pods",
        "ours",
    ]
    assert cgroups.processes_below("ours", [tmp_path]) == {7, 8, 9}


def test_a_new_cpuset_group_takes_processors_and_memory_from_the_top(tmp_path: Path) -> None:
    group = tmp_path / "ours"
    group.mkdir()
    for setting, value in {"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"}.items():
        (tmp_path / setting).write_text(value)
        (group / setting).write_text("\n")
    cgroups.create("ours", [tmp_path])
    assert (group / "cpuset.cpus").read_text() == "0-1\n"
    assert (group / "cpuset.mems").read_text() == "0\n"


def test_groups_in_use_are_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ours" / "empty").mkdir(parents=True)
    (tmp_path / "ours" / "busy").mkdir()
    (tmp_path / "ours" / "busy" / "held").touch()
    left = cgroups.remove("ours", [tmp_path])
    assert set(left) == {tmp_path / "ours" / "busy", tmp_path / "ours"}
    assert not (tmp_path / "ours" / "empty").exists()

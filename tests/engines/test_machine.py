"""What a process may use: the machine's memory and cores, or its container's."""

from pathlib import Path

from qwen_openai.engines.machine import Machine, measure


def test_a_container_has_less_than_the_machine(tmp_path: Path) -> None:
    whole = measure(tmp_path)
    assert whole.cores >= 1
    assert whole.memory > 0
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("40000000\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert measure(tmp_path) == Machine(60_000_000, 1)


def test_cached_files_are_not_charged_to_a_container(tmp_path: Path) -> None:
    # After a first pull the model is in the page cache, which the kernel gives up on demand.
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("90000000\n")
    stat = "anon 20000000\nfile 70000000\ninactive_file 40000000\nactive_file 25000000\nshmem 5\n"
    (tmp_path / "memory.stat").write_text(stat)
    assert measure(tmp_path).memory == 75_000_000
    # The two files are not read at one moment: never more than the limit.
    (tmp_path / "memory.current").write_text("1000\n")
    assert measure(tmp_path).memory == 100_000_000
    (tmp_path / "memory.stat").write_text("garbage\ninactive_file many\n")
    assert measure(tmp_path).memory == 99_999_000


def test_a_container_without_limits_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert measure(tmp_path).cores == measure(tmp_path / "absent").cores

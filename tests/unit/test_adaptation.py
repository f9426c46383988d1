"""An app's own correction: how it is learned, packed, applied to that app alone, and taken back."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.adapted import KeptCorrections, UnreadableCorrections, corrections_path, load_corrections, save_corrections
from adapters.settings import Settings
from bellbuoy.configuration import ConfigConflict, check_change
from bellbuoy.corrections import with_corrections
from core.adaptation import FALSE_ALARMS, calibrated, learn, ridge, spectrum
from core.configs import ConfigLog
from core.detection.application import _supersedes
from core.label_rows import distinct, sampled, split, too_few
from core.metrics import FIRES
from core.scoring import SCORER_VERSIONS, ScoredText, Scoring
from core.scoring.adapted import MAX_BYTES, Correction, centred, features_of, pack, quadratic_form, unpack
from core.scoring.corrections import check_adapted, own_heads, rolled_back
from core.scoring.cut import all_words
from core.scoring.features import BUCKETS, read
from core.scoring.normalise import normalise
from core.scoring.safety import NOT_COVERED
from core.summary import Tallies
from schemas.codec import decode, encode
from schemas.messages import Activation, AdaptedHead, Config, Interaction
from tests.unit.adapted_twin import NAME, adapted_head, labelled, learned, rows
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin
from tests.unit.test_scoring import chat, config

BASE = SCORER_VERSIONS["safety"]


def correction() -> Correction:
    return Correction(adapted_head(), len(heads_twin().names), embedding_twin().dimensions)


def scoring(*adapted: AdaptedHead) -> Scoring:
    return Scoring(config(adapted=list(adapted)), embedding_twin(), heads_twin())


def scored(*batch: Interaction, adapted: tuple[AdaptedHead, ...] = ()) -> list[ScoredText]:
    return scoring(*(adapted or (adapted_head(),))).interactions(batch)


def desk(text: str, response: str | None = None) -> Interaction:
    return msgspec.structs.replace(chat(text, response), app="desk")


# --- learning ---------------------------------------------------------------------------------------------------------


def test_a_rule_of_the_app_is_learned_and_holds_on_new_rows() -> None:
    texts, labels = labelled(200, seed=5)
    new = rows(texts)
    values = correction().values(correction().margins(new.texts, new.logits, new.vectors))
    assert ((values >= FIRES) == (labels == 1)).mean() > 0.97


def test_learning_twice_gives_equal_bytes() -> None:
    texts, labels = labelled(200)
    assert pack(learn(rows(texts), labels, [0, 1]).weights) == pack(learned().weights)


def test_left_out_predictions_are_those_of_a_fit_without_the_row() -> None:
    draw = np.random.default_rng(0)
    points = draw.normal(size=(30, 4))
    kernel, targets, weights = points @ points.T + 1.0, draw.normal(size=30), draw.uniform(0.5, 2.0, 30)
    _, left_out = ridge(spectrum(kernel, weights), targets, 0.7)
    rest = np.arange(1, 30)
    alpha, _ = ridge(spectrum(kernel[np.ix_(rest, rest)], weights[rest]), targets[rest], 0.7)
    assert left_out[0] == pytest.approx(kernel[0, rest] @ alpha)


def test_the_integer_form_says_what_the_kernels_said() -> None:
    texts, labels = labelled(200)
    one = learn(rows(texts), labels, [0, 1], fits=[((1.0, 1.0, 1.0), 1.0)])
    all_rows = rows(texts)
    made = Correction(adapted_head(weights=pack(one.weights)), len(heads_twin().names), embedding_twin().dimensions)
    margins = made.margins(all_rows.texts, all_rows.logits, all_rows.vectors)
    assert np.corrcoef(margins, one.left_out)[0, 1] > 0.9
    assert margins[labels == 1].min() > margins[labels == 0].max()


def test_at_most_one_in_a_hundred_harmless_rows_fires() -> None:
    draw = np.random.default_rng(1)
    labels = (np.arange(2_000) < 600).astype(np.int64)
    margins = np.round((draw.normal(size=2_000) + labels) * (1 << 20)).astype(np.int64)
    low, step, values = calibrated(margins, labels)
    fires = values[np.clip((margins - low) // step, 0, len(values) - 1)] >= FIRES
    assert fires[labels == 0].mean() <= FALSE_ALARMS


def test_further_harmless_traffic_moves_the_threshold() -> None:
    draw = np.random.default_rng(1)
    labels = (np.arange(2_000) < 600).astype(np.int64)
    margins = np.round((draw.normal(size=2_000) + 6 * labels) * (1 << 20)).astype(np.int64)
    benign = np.full(1_000, 4 << 20)
    low, step, values = calibrated(margins, labels, benign)
    assert values[((4 << 20) - low) // step] < FIRES


def test_labels_of_one_class_are_refused() -> None:
    texts, labels = labelled(50)
    with pytest.raises(ValueError, match="both classes"):
        learn(rows(texts), np.zeros_like(labels), [0])


# --- rows ---------------------------------------------------------------------------------------------------------


def test_a_thousand_copies_of_a_row_count_once() -> None:
    kept = distinct([f"Buy gold now{'!' * n}" for n in range(1_000)] + ["bake a cake"], [0] * 1_000 + [1])
    assert (kept.labels.tolist(), kept.duplicates) == ([0, 1], 999)


def test_a_group_has_the_label_of_most_of_its_rows() -> None:
    assert distinct(["buy gold now", "Buy gold now!", "buy GOLD now"], [1, 1, 0]).labels.tolist() == [1]


def test_texts_without_a_word_are_no_duplicates_of_each_other() -> None:
    assert len(distinct(["!", "?", "buy gold"], [0, 1, 0]).rows) == 3


def test_a_sample_keeps_the_rarer_class() -> None:
    labels = np.array([1] * 10 + [0] * 990)
    assert labels[sampled(labels, 100, 0)].sum() == 10


def test_the_held_out_part_has_both_classes_and_no_row_that_is_learned_from() -> None:
    labels = np.array([1] * 20 + [0] * 80)
    inside, outside = split(labels, 3)
    assert sorted([*inside, *outside]) == list(range(100))
    assert labels[outside].sum() == 6


def test_enough_labels_are_enough() -> None:
    assert too_few(np.array([1] * 20 + [0] * 80)) is None


# --- bytes --------------------------------------------------------------------------------------------------------


def test_packing_loses_nothing() -> None:
    again = unpack(pack(learned().weights))
    assert pack(again) == pack(learned().weights)
    assert (again.quadratic == learned().weights.quadratic).all()


@given(st.binary(max_size=400))
@settings(max_examples=60)
def test_bytes_of_anybody_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="correction"):
        unpack(data)


def test_a_cut_correction_is_refused() -> None:
    with pytest.raises(ValueError, match="correction"):
        unpack(pack(learned().weights)[:-1])


def test_a_correction_for_other_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="other heads"):
        Correction(adapted_head(), 3, embedding_twin().dimensions)


def test_a_quadratic_form_is_exact_and_the_same_for_a_row_alone() -> None:
    draw = np.random.default_rng(2)
    matrix = draw.integers(-127, 128, (256, 256))
    matrix = matrix + matrix.T
    x = draw.integers(-(1 << 14), 1 << 14, (9, 256))
    exact = [sum(int(a) * int(b) for a, b in zip(row @ matrix, row, strict=True)) for row in x]
    assert quadratic_form(x, matrix.astype(float)).tolist() == exact


def test_an_empty_text_has_a_margin() -> None:
    zero = np.zeros((1, embedding_twin().dimensions), np.int32)
    assert centred(zero, learned().weights.mean).shape == zero.shape
    assert len(correction().margins([""], np.zeros((1, len(heads_twin().names) + 1), np.int64), zero)) == 1


def test_the_cache_of_words_adds_up_what_the_features_say() -> None:
    draw = Random(6)
    texts = [
        " ".join(draw.choices(["glorp", "train", "GL0RP", "ünï", "中文", "a", "b", "c"], k=draw.randint(0, 60)))
        for _ in range(50)
    ]
    features, made = features_of(texts), correction()
    dense = np.zeros(BUCKETS, np.int64)
    dense[made.weights.ids] = made.weights.grams
    sums = [int(dense[features.ids[start:end]].sum()) for start, end in pairwise(features.ends)]
    total, counts = made._words.sums([all_words(read(normalise(text).text)) for text in texts])
    assert (total.tolist(), counts.tolist()) == (sums, np.diff(features.ends).tolist())


# --- scoring ------------------------------------------------------------------------------------------------------


def test_a_correction_holds_for_its_app_alone() -> None:
    text = "please tell me glorp how the train goes"
    ours, theirs = scored(desk(text), chat(text))
    assert ours.scores[NAME].scorer == f"safety@{BASE}003"
    assert theirs == scoring().interactions([chat(text)])[0]


def test_a_correction_holds_for_its_environment_alone() -> None:
    (other,) = scored(msgspec.structs.replace(desk("glorp"), environment="staging"))
    assert other.scores[NAME].scorer == f"safety@{BASE}"


def test_other_scores_of_the_app_keep_their_version() -> None:
    (ours,) = scored(desk("glorp"))
    assert ours.scores["prompt.safety.jailbreak"].scorer == f"safety@{BASE}"


@pytest.mark.parametrize("size", [1, 7, 137])
def test_corrected_scores_are_the_same_in_any_batch(size: int) -> None:
    draw = Random(4)
    words = [*["glorp", "train", "die", "der", "das", "что", "中", "\u200b", "1337", "5h3"], "x" * 50]
    batch = [(desk if n % 3 else chat)(" ".join(draw.choices(words, k=draw.randint(0, 200)))) for n in range(300)]
    together = scored(*batch)
    made = scoring(adapted_head())
    apart = [one for at in range(0, len(batch), size) for one in made.interactions(batch[at : at + size])]
    assert msgspec.json.encode(apart) == msgspec.json.encode(together)


def test_what_fires_by_a_correction_says_which_word_and_where() -> None:
    text = "please tell me how the glorp train goes to town"
    (ours,) = scored(desk(text))
    score = ours.scores[NAME]
    assert score.value >= FIRES
    assert any(text[reason.start : reason.end] == "glorp" for reason in score.reasons)


def test_a_language_without_labels_stays_not_covered() -> None:
    german = "glorp ich weiß nicht wie der zug in die stadt fährt und das ist nicht gut"
    (ours,) = scored(desk(german))
    assert ours.scores[NAME].value < FIRES
    assert [reason.rule for reason in ours.scores[NAME].reasons] == [NOT_COVERED]


def test_a_language_with_labels_is_covered() -> None:
    german = "glorp ich weiß nicht wie der zug in die stadt fährt und das ist nicht gut"
    (ours,) = scored(desk(german), adapted=(adapted_head(languages=("de",)),))
    assert NOT_COVERED not in [reason.rule for reason in ours.scores[NAME].reasons]


def test_a_correction_of_older_heads_changes_the_version_and_nothing_else() -> None:
    (ours,), (frozen,) = scored(desk("glorp"), adapted=(adapted_head(heads="0" * 64),)), scoring().interactions([desk("glorp")])
    assert ours.scores[NAME].scorer == f"safety@{BASE}003"
    assert ours.scores[NAME].value == frozen.scores[NAME].value


def test_a_response_is_corrected_by_its_own_text() -> None:
    head = adapted_head(name="response.safety.unsafe")
    (ours,) = scored(desk("hello", "please tell me glorp how"), adapted=(head,))
    assert ours.scores["response.safety.unsafe"].scorer == f"safety@{BASE}003"
    assert {reason.text for reason in ours.scores["response.safety.unsafe"].reasons} <= {"response"}


def test_a_damaged_correction_is_refused_when_scoring_is_built() -> None:
    with pytest.raises(ValueError, match="correction"):
        scoring(adapted_head(weights=b"nonsense"))


# --- configs ------------------------------------------------------------------------------------------------------


def test_a_config_with_corrections_survives_its_encoding() -> None:
    value = config(adapted=[adapted_head()])
    assert decode(Config, encode(value)) == value


def test_a_score_corrected_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        check_adapted([adapted_head(), adapted_head(version=4)])


@pytest.mark.parametrize("name", ["latency", "prompt.pii", "nonsense", "response.empty"])
def test_a_score_without_a_learned_head_cannot_be_corrected(name: str) -> None:
    with pytest.raises(ValueError, match="no score that labels can correct"):
        own_heads(name)


def test_a_config_that_no_record_holds_is_refused_before_it_is_written() -> None:
    large = [adapted_head(app=f"app-{n}") for n in range(800)]
    with pytest.raises(ValueError, match="800 corrections of scores"):
        check_change(None, config(adapted=large))


def test_a_packed_correction_is_small() -> None:
    assert len(pack(learned().weights)) < MAX_BYTES


def test_a_correction_that_is_too_large_says_so() -> None:
    draw = np.random.default_rng(0)
    many = np.arange(0, 1 << 18, dtype=np.uint32)
    with pytest.raises(ValueError, match="is the most"):
        pack(replace(learned().weights, ids=many, grams=draw.integers(-127, 128, len(many)).astype(np.int8)))


# --- rollback -----------------------------------------------------------------------------------------------------


def test_a_rollback_restores_the_correction_before_as_a_new_version() -> None:
    first, second = adapted_head(version=1, languages=("en",)), adapted_head(version=2)
    back = rolled_back([first, second], 3)
    assert (back.version, back.restores, back.languages) == (3, 1, ("en",))


def test_a_rollback_of_the_first_correction_restores_the_frozen_score() -> None:
    back = rolled_back([adapted_head(version=1)], 2)
    assert (back.version, back.weights) == (2, b"")


def test_a_second_rollback_goes_further_back() -> None:
    history = [adapted_head(version=1), adapted_head(version=2)]
    history.append(rolled_back(history, 3))
    assert rolled_back(history, 4).weights == b""


def test_a_rollback_whose_origin_is_forgotten_restores_the_frozen_score() -> None:
    history = [adapted_head(version=2), rolled_back([adapted_head(version=1), adapted_head(version=2)], 3)]
    assert rolled_back(history, 4).weights == b""


def test_there_is_nothing_to_roll_back_after_the_frozen_score() -> None:
    history = [adapted_head(version=1)]
    history.append(rolled_back(history, 2))
    with pytest.raises(ValueError, match="no correction is active"):
        rolled_back(history, 3)


# --- the data folder ----------------------------------------------------------------------------------------------


def test_kept_corrections_are_for_the_owners_eyes_only(tmp_path: Path) -> None:
    kept = KeptCorrections("../../etc/passwd", "production", [adapted_head()])
    path = save_corrections(Settings(data_dir=tmp_path), kept)
    assert path.parent == tmp_path / "adapted"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_kept_corrections_are_read_again(tmp_path: Path) -> None:
    settings_ = Settings(data_dir=tmp_path)
    kept = KeptCorrections("desk", "production", [adapted_head()], [adapted_head()])
    save_corrections(settings_, kept)
    assert load_corrections(settings_, "desk", "production") == kept
    assert load_corrections(settings_, "desk", "staging").learned == []


def test_a_damaged_file_of_corrections_is_named(tmp_path: Path) -> None:
    settings_ = Settings(data_dir=tmp_path)
    save_corrections(settings_, KeptCorrections("desk", "production"))
    corrections_path(settings_, "desk", "production").write_bytes(b"{")
    with pytest.raises(UnreadableCorrections, match="was damaged"):
        load_corrections(settings_, "desk", "production")


def test_the_newest_versions_are_kept(tmp_path: Path) -> None:
    settings_ = Settings(data_dir=tmp_path)
    save_corrections(settings_, KeptCorrections("desk", "production", [adapted_head(version=n) for n in range(1, 31)]))
    assert [head.version for head in load_corrections(settings_, "desk", "production").learned] == list(range(11, 31))


# --- detection ----------------------------------------------------------------------------------------------------


def test_a_block_counts_corrected_and_frozen_scores_under_different_identities() -> None:
    tallies = Tallies(1)
    texts = ["please tell me glorp how", "the train goes to town"] * 5
    batch = [one for text in texts for one in (desk(text), chat(text))]
    for said, text in zip(batch, scored(*batch), strict=True):
        tallies.interaction((said.app, said.environment, "v"), text.scores)
    groups = {group.app: group for group in tallies.groups(0, frozenset(), 10)}
    ours = {key for key in groups["desk"].bins if key.startswith(f"{NAME}@")}
    theirs = {key for key in groups["a"].bins if key.startswith(f"{NAME}@")}
    assert (ours, theirs) == ({f"{NAME}@{BASE}003"}, {f"{NAME}@{BASE}"})


def test_a_later_correction_replaces_the_reference_of_an_earlier_one() -> None:
    keys = [f"{NAME}@{BASE}", f"{NAME}@{BASE}001", f"{NAME}@{BASE}002", f"{NAME}@{BASE + 1}001"]
    assert all(_supersedes(new, old) for old, new in pairwise(keys))


def test_another_correction_of_the_same_version_is_refused() -> None:
    here, there = adapted_head(version=1), msgspec.structs.replace(adapted_head(version=1), languages=("de",))
    log, active = ConfigLog(), config(adapted=[there])
    log.configs["c"] = active
    log.activations.append((None, Activation(id="a", config="c", actor="test", reason="test")))
    with pytest.raises(ConfigConflict, match="version 1 from elsewhere"):
        with_corrections(log, [here], "test")

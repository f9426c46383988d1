"""Which config holds for a window: the first activation from the beginning, later ones 30 s after they were appended."""

import msgspec
import pytest

from core.configs import ConfigLog, UnknownConfig
from schemas import codec
from schemas.codec import InvalidMessage, Record
from schemas.messages import Activation, Coordinates, Message, Poison, Tick
from tests.unit.scoring_twin import CONFIG

OLD = CONFIG
NEW = msgspec.structs.replace(CONFIG, max_pairs_per_block=7)
T = 1_700_000_000_000


def _log(*said: tuple[int, Message]) -> ConfigLog:
    log = ConfigLog()
    for offset, (time, message) in enumerate(said):
        headers = codec.cloud_headers(type(message), id_=str(offset), time_ms=time)
        log.add(Record(offset, time, None, codec.encode(message), headers))
    return log


def _activation(config: Message, id_: str = "a") -> Activation:
    return Activation(id=id_, config=codec.digest(config), actor="test", reason="test")


def test_the_first_activation_holds_from_the_beginning_of_every_log() -> None:
    assert _log((T, OLD), (T, _activation(OLD))).config_for(0) == codec.digest(OLD)


@pytest.mark.parametrize(("window", "config"), [(T + 129_999, OLD), (T + 130_000, NEW), (T + 130_001, NEW)])
def test_a_later_activation_holds_from_the_first_window_that_starts_thirty_seconds_after_it(window: int, config: Message) -> None:
    log = _log((T, OLD), (T, _activation(OLD)), (T, NEW), (T + 100_000, _activation(NEW)))
    assert log.config_for(window) == codec.digest(config)


def test_of_the_activations_that_hold_the_last_in_the_log_decides() -> None:
    log = _log((T, OLD), (T, _activation(OLD)), (T, NEW), (T + 10, _activation(NEW)), (T, _activation(OLD, "b")))
    assert log.config_for(T + 60_000) == codec.digest(OLD)


def test_without_an_activation_no_window_has_a_config() -> None:
    with pytest.raises(UnknownConfig):
        _log((T, OLD)).config_for(T)


def test_an_activated_digest_that_is_not_in_the_log_is_an_error() -> None:
    with pytest.raises(UnknownConfig):
        _log((T, _activation(OLD))).config_for(T)


def test_a_config_is_found_by_its_digest() -> None:
    assert _log((T, OLD)).config(codec.digest(OLD)) == OLD


def test_a_config_keeps_its_digest_where_it_has_fields_of_a_newer_version() -> None:
    newer = msgspec.structs.replace(CONFIG, extra={"brand_new": msgspec.Raw(b"[1]")})
    assert _log((T, newer)).config(codec.digest(newer))


def test_an_unknown_digest_is_an_error() -> None:
    with pytest.raises(UnknownConfig):
        _log((T, OLD)).config("0" * 64)


def test_poison_counts_whatever_its_time() -> None:
    at = Coordinates(topic="llm.interactions", topic_id="x", partition=0, offset=3)
    assert _log((T, OLD), (T, _activation(OLD)), (T + 10**9, Poison(coordinates=at, reason="died"))).poison == {at}


def test_a_record_that_cannot_be_read_stops_the_reader() -> None:
    with pytest.raises(InvalidMessage):
        _log((T, Tick(window=0)))
    with pytest.raises(InvalidMessage):
        ConfigLog().add(Record(0, T, None, b"{}", []))

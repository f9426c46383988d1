"""The spool: order, its bound, and what is left of it when the process dies at any byte."""

import shutil
import stat
from pathlib import Path

import pytest

from adapters.spool import Spool
from schemas.codec import Outgoing


def record(number: int, size: int = 20) -> Outgoing:
    return Outgoing("llm.interactions", f"k{number}".encode(), f"{number}:".encode().ljust(size, b"x"), [("ce_id", b"i")])


def opened(folder: Path, max_bytes: int = 1_000_000, segment_bytes: int = 200) -> Spool:
    return Spool(folder, max_bytes, segment_bytes=segment_bytes)


def values(spool: Spool) -> list[int]:
    return [int((out.value or b"").partition(b":")[0]) for _, out in spool.read(10_000, 10**9)]


def test_records_come_back_as_they_were_in_order_across_segments(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(50):
        assert spool.append(record(number)) is not None
    assert len(list(tmp_path.glob("*.spool"))) > 5
    assert [out for _, out in spool.read(1_000, 10**9)] == [record(number) for number in range(50)]


def test_a_second_read_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(10):
        spool.append(record(number))
    assert [len(spool.read(4, 10**9)) for _ in range(4)] == [4, 4, 2, 0]


def test_a_rewind_gives_what_is_not_confirmed_once_more(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(10):
        spool.append(record(number))
    read = spool.read(8, 10**9)
    spool.confirm(read[2][0])
    spool.rewind()
    assert values(spool) == list(range(3, 10))


def test_a_rewind_behind_a_record_gives_only_what_follows_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(10):
        spool.append(record(number))
    read = spool.read(8, 10**9)
    spool.rewind(read[4][0])
    assert values(spool) == list(range(5, 10))


def test_what_was_confirmed_is_not_given_after_a_new_start(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(10):
        spool.append(record(number))
    spool.confirm(spool.read(7, 10**9)[-1][0])
    spool.close()
    assert values(opened(tmp_path)) == [7, 8, 9]


def test_segments_are_deleted_once_all_of_them_is_confirmed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(50):
        spool.append(record(number))
    spool.confirm(spool.read(100, 10**9)[-1][0])
    assert (list(tmp_path.glob("*.spool")), len(spool), spool.size) == ([], 0, 0)


def test_an_emptied_spool_takes_new_records(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(3):
        spool.append(record(number))
    spool.confirm(spool.read(100, 10**9)[-1][0])
    spool.append(record(3))
    assert values(spool) == [3]
    spool.close()
    assert values(opened(tmp_path)) == [3]


def test_records_that_the_producer_has_already_are_not_given(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(record(0))
    spool.read_to_end()
    spool.append(record(1))
    assert (values(spool), len(spool)) == ([1], 2)


def test_a_record_that_does_not_fit_is_refused_and_the_rest_stands(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=300)
    taken = [spool.append(record(number, 60)) is not None for number in range(10)]
    assert taken.count(True) == len(values(spool))
    assert 0 < taken.count(True) < 10
    assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) <= 300


def test_a_reserve_is_kept_for_those_that_may_use_it(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=1_000)
    while spool.append(record(1), reserve=0.5) is not None:
        pass
    assert spool.size <= 500
    assert spool.append(record(2)) is not None


def test_confirmed_room_can_be_used_again(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=400)
    while spool.append(record(1)) is not None:
        pass
    spool.confirm(spool.read(100, 10**9)[-1][0])
    assert spool.append(record(2)) is not None


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    spool.append(record(1))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "spool").iterdir()}
    assert (modes, stat.S_IMODE((tmp_path / "spool").stat().st_mode)) == ({0o600}, 0o700)


def test_a_death_at_any_byte_leaves_the_records_before_it_and_takes_new_ones(tmp_path: Path) -> None:
    spool = opened(tmp_path / "whole", segment_bytes=100_000)
    ends = [position.end for number in range(4) if (position := spool.append(record(number))) is not None]
    spool.close()
    (file,) = (tmp_path / "whole").glob("*.spool")
    data = file.read_bytes()
    for size in range(len(data)):
        folder = tmp_path / "torn"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / file.name).write_bytes(data[:size])
        torn = opened(folder)
        whole = sum(end <= size for end in ends)
        assert torn.torn == size - max([0, *(end for end in ends if end <= size)])
        torn.append(record(99))
        assert values(torn) == [*range(whole), 99]
        torn.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("tail", [bytes(64), b"\xff" * 64, b"\0\0\0\5\0\0\0\0hello"])
def test_a_tail_of_rubbish_is_cut(tmp_path: Path, tail: bytes) -> None:
    spool = opened(tmp_path)
    spool.append(record(1))
    spool.close()
    (file,) = tmp_path.glob("*.spool")
    with file.open("ab") as out:
        out.write(tail)
    again = opened(tmp_path)
    assert (values(again), again.torn) == ([1], len(tail))


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=10_000)
    ends = [position.end for number in range(3) if (position := spool.append(record(number))) is not None]
    spool.close()
    (file,) = tmp_path.glob("*.spool")
    data = bytearray(file.read_bytes())
    data[ends[1] - 3] ^= 1
    file.write_bytes(data)
    assert values(opened(tmp_path)) == [0]


def test_a_torn_note_of_what_was_delivered_repeats_rather_than_loses(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=10_000)
    for number in range(3):
        spool.append(record(number))
    spool.confirm(spool.read(1, 10**9)[0][0])
    spool.close()
    (tmp_path / "delivered").write_bytes(b"\1" * 20)
    assert values(opened(tmp_path)) == [0, 1, 2]


def test_where_the_disk_takes_no_new_segment_a_record_is_refused_until_it_does(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    (tmp_path / "spool").rename(tmp_path / "gone")
    assert spool.append(record(0)) is None
    (tmp_path / "gone").rename(tmp_path / "spool")
    assert spool.append(record(1)) is not None
    assert values(spool) == [1]

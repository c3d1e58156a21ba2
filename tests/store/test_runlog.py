"""Rows of a long job on disk: cut off, damaged, there already."""

import pytest

from crs_sim.errors import StorageError
from crs_sim.store.records import append_rows, check_log, open_log, read_rows


def test_a_cut_off_line_gives_way_to_the_next(tmp_path):
    log = tmp_path / "deep" / "rows.jsonl"
    append_rows(log, [{"a": 1}, {"a": 2}])
    log.write_bytes(log.read_bytes()[:-3])
    assert read_rows(log, dict) == [{"a": 1}]
    append_rows(log, [{"a": 3}])
    assert log.read_text() == '{"a": 1}\n{"a": 3}\n'
    log.write_text('{"a"')  # nothing but the beginning of the first
    append_rows(log, [{"a": 4}])
    assert read_rows(log, dict) == [{"a": 4}]


def test_a_bad_line_is_named(tmp_path):
    log = tmp_path / "rows.jsonl"
    assert read_rows(log, dict) == []
    log.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(StorageError, match=r"rows.jsonl  is damaged \(line 2: JSONDecodeError"):
        read_rows(log, dict)
    log.write_text('{"a": 1}\n7\n')
    with pytest.raises(StorageError, match=r"is damaged \(line 2: TypeError: .*; delete it, or"):
        read_rows(log, dict)


def test_what_is_there_is_not_written_over(tmp_path):
    log = tmp_path / "rows.jsonl"
    check_log(log, resume=False)
    append_rows(log, [[1]])
    check_log(log, resume=True)
    with pytest.raises(StorageError, match=r"holds results already; resume them \(--resume\)"):
        check_log(log, resume=False)


def test_a_job_that_ended_before_its_first_row_is_in_nobodys_way(tmp_path):
    log = tmp_path / "rows.jsonl"
    assert open_log(log, {"seed": 1}, resume=False) == []
    assert open_log(log, {"seed": 2}, resume=False) == open_log(log, {"seed": 3}, resume=True) == []
    append_rows(log, [[1]])
    assert open_log(log, {"seed": 3}, resume=True) == [[1]]
    with pytest.raises(StorageError, match="holds results already"):
        open_log(log, {"seed": 3}, resume=False)
    with pytest.raises(StorageError, match="it was made with seed 3, not 4"):
        open_log(log, {"seed": 4}, resume=True)

"""The shelf: arrays that outlive a process, in a folder of bounded size that may be damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_nli.models.shelf import Shelf

WIDTH = 4
ROW = WIDTH * 4
"""Bytes of one float32 row."""
KB = 1024


def shelf_at(folder: Path, name: str = "one", limit: int = 64 * KB, **kind: object) -> Shelf:
    return Shelf(
        folder, name, **{"width": WIDTH, "dtype": np.dtype(np.float32), **kind}, limit=limit
    )


def array(rows: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60_000, (rows, WIDTH)).astype(dtype)


def stored(folder: Path) -> int:
    """Bytes of all segments."""
    return sum(file.stat().st_size for file in folder.glob("*/*.bin"))


def segments(folder: Path, name: str = "one") -> list[Path]:
    return sorted((folder / name).glob("*.bin"))


def age(folder: Path, name: str, seconds: float) -> None:
    """Make a shelf's segments as old as that."""
    for segment in segments(folder, name):
        moment = segment.stat().st_mtime - seconds
        os.utime(segment, (moment, moment))


def filled(folder: Path, name: str, kilobytes: int, limit: int = 64 * KB) -> Shelf:
    """A shelf with one segment."""
    shelf = shelf_at(folder, name, limit)
    shelf.put("k", array(kilobytes * KB // ROW))
    shelf.flush()
    assert [file.stat().st_size for file in segments(folder, name)] == [kilobytes * KB]
    return shelf


def holds(folder: Path, name: str) -> bool:
    return bool(segments(folder, name))


class TestKeeping:
    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(
            st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9), st.booleans()), max_size=25
        ),
        st.sampled_from([np.float32, np.uint16]),
    )
    def test_what_was_put_comes_back_here_and_in_the_next_run(self, puts, dtype):
        with tempfile.TemporaryDirectory() as folder:
            kind = {"dtype": np.dtype(dtype)}
            shelf, expected = shelf_at(Path(folder), **kind), {}
            for seed, (key, rows, flushes) in enumerate(puts):
                new = array(rows, seed, dtype)
                shelf.put(key, new)
                expected.setdefault(key, new)  # a key's array never changes: the first one stays
                if flushes:
                    shelf.flush()
            shelf.flush()
            for each in (shelf, shelf_at(Path(folder), **kind)):
                assert {key for key in "abcdefgh" if key in each} == expected.keys()
                for key, value in expected.items():
                    found = each.get(key)
                    assert found.dtype == value.dtype
                    np.testing.assert_array_equal(found, value)
                assert each.get("other") is None

    def test_it_is_readable_before_it_is_written(self, tmp_path):
        shelf = shelf_at(tmp_path)
        shelf.put("k", array(3))
        assert not segments(tmp_path)
        assert "k" in shelf
        np.testing.assert_array_equal(shelf.get("k"), array(3))

    def test_many_small_arrays_make_few_files(self, tmp_path):
        shelf = shelf_at(tmp_path, limit=8 * KB)
        for index in range(30):
            shelf.put(str(index), array(10, index))  # 160 bytes each: half the limit is 26 of them
        assert len(segments(tmp_path)) == 1
        shelf.flush()
        assert len(segments(tmp_path)) == 2
        shelf.flush()
        assert len(segments(tmp_path)) == 2

    def test_shelves_of_other_names_have_nothing_in_common(self, tmp_path):
        filled(tmp_path, "one", 1)
        assert "k" in shelf_at(tmp_path, "one")
        assert "k" not in shelf_at(tmp_path, "two")

    def test_without_room_nothing_is_made(self, tmp_path):
        shelf = shelf_at(tmp_path / "folder", limit=0)
        shelf.put("k", array(3))
        shelf.flush()
        assert shelf.get("k") is None
        assert "k" not in shelf
        assert not (tmp_path / "folder").exists()


class TestBound:
    def test_all_shelves_of_a_folder_share_it(self, tmp_path):
        limit = 16 * KB
        for name in ("one", "two", "three", "four"):
            shelf = shelf_at(tmp_path, name, limit)
            for index in range(300):
                shelf.put(f"{name} {index}", array(4, index))
                assert stored(tmp_path) <= limit
            shelf.flush()
            assert stored(tmp_path) <= limit
        assert stored(tmp_path) > limit / 2

    def test_the_longest_unused_goes_first(self, tmp_path):
        for seconds, name in ((10, "old"), (30, "oldest"), (20, "older")):
            filled(tmp_path, name, 4)
            age(tmp_path, name, seconds)
        filled(tmp_path, "new", 4, limit=12 * KB)
        assert [holds(tmp_path, name) for name in ("oldest", "older", "old", "new")] == [
            False, True, True, True,
        ]  # fmt: skip
        assert not list((tmp_path / "oldest").iterdir())

    def test_no_more_goes_than_must(self, tmp_path):
        filled(tmp_path, "one", 4)
        filled(tmp_path, "two", 4, limit=8 * KB)
        assert holds(tmp_path, "one")

    @pytest.mark.parametrize("ask", [Shelf.get, Shelf.__contains__])
    def test_asking_is_a_use(self, tmp_path, ask):
        for seconds, name in ((20, "first"), (10, "second")):
            filled(tmp_path, name, 4)
            age(tmp_path, name, seconds)
        shelf_at(tmp_path, "second")  # opening it is none
        assert ask(shelf_at(tmp_path, "first"), "k") is not None
        filled(tmp_path, "new", 4, limit=8 * KB)
        assert holds(tmp_path, "first")
        assert not holds(tmp_path, "second")

    def test_what_a_shelf_uses_stays_and_new_arrays_do_not(self, tmp_path):
        filled(tmp_path, "one", 4)
        age(tmp_path, "one", 3600)
        filled(tmp_path, "other", 2)
        shelf = shelf_at(tmp_path, "one", limit=8 * KB)
        np.testing.assert_array_equal(shelf.get("k"), array(4 * KB // ROW))
        shelf.put("more", array(6 * KB // ROW))
        shelf.flush()
        assert "more" not in shelf
        assert shelf.get("more") is None
        np.testing.assert_array_equal(shelf.get("k"), array(4 * KB // ROW))
        shelf.put("small", array(1))  # once full, it stays so: no array is written and dropped
        assert "small" not in shelf

    def test_what_nobody_asks_for_any_more_makes_room_in_its_own_shelf(self, tmp_path):
        """Texts of long ago, pairs that were drawn once."""
        limit = 12 * KB
        for index in range(1, 10):
            shelf = shelf_at(tmp_path, limit=limit)
            for key in (index - 1, index):  # the one of last time is still of use
                shelf.put(str(key), array(4 * KB // ROW, key))
            shelf.flush()
            assert not shelf.full
            assert stored(tmp_path) <= limit
            np.testing.assert_array_equal(shelf.get(str(index)), array(4 * KB // ROW, index))
        assert "1" not in shelf_at(tmp_path, limit=limit)
        assert "8" in shelf_at(tmp_path, limit=limit)

    def test_a_lower_bound_holds_at_once(self, tmp_path):
        for name in "abcd":
            filled(tmp_path, name, 4)
        shelf_at(tmp_path, "a", limit=8 * KB)
        assert stored(tmp_path) == 8 * KB

    def test_an_array_larger_than_the_bound_is_not_kept(self, tmp_path):
        shelf = shelf_at(tmp_path, limit=KB)
        shelf.put("k", array(2 * KB // ROW))
        shelf.flush()
        assert shelf.get("k") is None
        assert stored(tmp_path) == 0

    def test_a_shelf_whose_segments_another_one_took_forgets_them(self, tmp_path):
        loser = filled(tmp_path, "one", 4)
        filled(tmp_path, "two", 4, limit=4 * KB)
        assert loser.get("k") is None
        assert "k" not in loser
        loser.put("k", array(1))
        np.testing.assert_array_equal(loser.get("k"), array(1))


class TestDamage:
    @pytest.fixture
    def segment(self, tmp_path) -> Path:
        """Of arrays "a" (3 rows) and "b" (2 rows); tests damage it."""
        shelf = shelf_at(tmp_path)
        shelf.put("a", array(3, 1))
        shelf.put("b", array(2, 2))
        shelf.flush()
        (segment,) = segments(tmp_path)
        return segment

    @pytest.mark.parametrize(
        ("size", "left"), [(5 * ROW - 1, "a"), (3 * ROW, "a"), (7, ""), (0, "")]
    )
    @pytest.mark.parametrize("reopened", [True, False])
    def test_a_cut_segment_gives_what_is_whole(self, tmp_path, segment, size, left, reopened):
        shelf = shelf_at(tmp_path)
        os.truncate(segment, size)
        shelf = shelf_at(tmp_path) if reopened else shelf
        found = {key: shelf.get(key) for key in "ab"}
        assert {key for key, value in found.items() if value is not None} == set(left)
        if left:
            np.testing.assert_array_equal(found["a"], array(3, 1))
        shelf.put("b", array(2, 2))  # and may be put again
        np.testing.assert_array_equal(shelf.get("b"), array(2, 2))

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"{", b"\xff\xfe", b"null", b"[]", b"3", b'"a"', b'{"a": 3}', b'{"a": [1]}',
        ],
    )  # fmt: skip
    def test_a_broken_index_is_as_none(self, tmp_path, segment, text):
        segment.with_suffix(".json").write_bytes(text)
        shelf = shelf_at(tmp_path)
        assert shelf.get("a") is None
        assert shelf.get("b") is None
        shelf.put("a", array(3, 1))
        shelf.flush()
        np.testing.assert_array_equal(shelf_at(tmp_path).get("a"), array(3, 1))

    def test_changed_bytes_are_no_array(self, tmp_path, segment):
        content = bytearray(segment.read_bytes())
        content[4 * ROW] ^= 1
        segment.write_bytes(content)
        shelf = shelf_at(tmp_path)
        np.testing.assert_array_equal(shelf.get("a"), array(3, 1))
        assert shelf.get("b") is None

    @pytest.mark.parametrize("ending", [".bin", ".json"])
    def test_half_a_segment_is_none(self, tmp_path, segment, ending):
        segment.with_suffix(ending).unlink()
        assert "a" not in shelf_at(tmp_path)

    def test_an_unfinished_index_is_none(self, tmp_path, segment):
        segment.with_suffix(".json").rename(segment.with_suffix(".tmp"))
        assert "a" not in shelf_at(tmp_path)

    def test_what_a_killed_process_left_is_swept_up_when_it_is_stale(self, tmp_path):
        for name in ("fresh", "stale"):
            filled(tmp_path, name, 4)
            segments(tmp_path, name)[0].with_suffix(".json").unlink()
        unfinished = tmp_path / "stale" / "x.tmp"
        unfinished.touch()
        os.utime(unfinished, (0, 0))
        age(tmp_path, "stale", 7200)
        filled(tmp_path, "new", 4)
        assert not unfinished.exists()
        assert holds(tmp_path, "fresh")  # another process may just be writing it
        assert not holds(tmp_path, "stale")

    def test_a_folder_deleted_meanwhile_does_no_harm(self, tmp_path, segment):
        shelf = shelf_at(tmp_path)
        for file in segment.parent.iterdir():
            file.unlink()
        segment.parent.rmdir()
        assert shelf.get("a") is None
        shelf.put("a", array(3, 1))
        np.testing.assert_array_equal(shelf.get("a"), array(3, 1))
        shelf.flush()
        found = shelf.get("a")
        assert found is None or np.array_equal(found, array(3, 1))

    def test_a_folder_that_cannot_be_made_keeps_nothing(self, tmp_path):
        (tmp_path / "file").write_text("a file where the folder should be")
        shelf = shelf_at(tmp_path / "file")
        shelf.put("k", array(3))
        shelf.flush()
        assert "k" not in shelf

    def test_a_folder_that_cannot_be_written_keeps_nothing(self, tmp_path, segment):
        shelf = shelf_at(tmp_path)
        segment.parent.rename(tmp_path / "away")
        segment.parent.write_text("a file where the folder was")
        shelf.put("c", array(3))
        shelf.flush()
        assert "c" not in shelf
        assert segment.parent.read_text() == "a file where the folder was"


def test_two_processes_write_at_once(tmp_path):
    """Both keep all they wrote, and nobody reads half of anything."""
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from lyra_nli.models.shelf import Shelf

        own = sys.argv[2]
        shelf = Shelf(
            Path(sys.argv[1]), "one", width=4, dtype=np.dtype(np.float32), limit=2**20
        )
        print("ready", flush=True)
        sys.stdin.readline()
        for index in range(60):
            # Every third key is written by both.
            key = f"{index} of {'both' if index % 3 == 0 else own}"
            shelf.put(key, np.full((index + 1, 4), index, np.float32))
            shelf.flush()
            other = Shelf(
                Path(sys.argv[1]), "one", width=4, dtype=np.dtype(np.float32), limit=2**20
            )
            for known in other._places:
                found = other.get(known)
                assert found is not None and (found == float(known.split()[0])).all(), known
        """
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in "12"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors

    shelf = shelf_at(tmp_path, limit=2**20)
    for index in range(60):
        for owner in ["both"] if index % 3 == 0 else "12":
            found = shelf.get(f"{index} of {owner}")
            np.testing.assert_array_equal(found, np.full((index + 1, 4), index))
    for index in (tmp_path / "one").glob("*.json"):
        json.loads(index.read_text())
    assert not list(tmp_path.glob("*/*.tmp"))

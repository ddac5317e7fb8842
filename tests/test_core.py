from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_folder, atomic_path, read_json, write_bytes, write_json
from openilias.core.fingerprints import differences, fingerprint, fingerprint_lines
from openilias.core.ids import distractor_shard, is_distractor, object_of
from openilias.core.manifests import claim, read_manifest, replacing, write_manifest
from openilias.core.progress import progress

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_error_says_what_where_and_what_to_do() -> None:
    assert str(OpenIliasError("Bad.", where="a.txt", fix="Mend it.")) == "Bad.\n  where: a.txt\n  to do: Mend it."
    assert first_few(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert first_few(["a"]) == "a"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with atomic_folder(target) as temporary:
            (temporary / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@given(JSON)
def test_fingerprints_see_every_difference_and_nothing_else(value: object) -> None:
    assert fingerprint({"a": value, "b": 1}) == fingerprint({"b": 1, "a": value})
    assert fingerprint({"a": value}) != fingerprint({"a": [value]})
    assert differences(value, value) == []


def test_differences_are_named() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 3}
    assert differences(old, new) == ["a.c: 2 -> 5", "d: 3 -> null", "e: null -> 3"]
    assert fingerprint_lines(["ab", "c"]) != fingerprint_lines(["a", "bc"])


def test_claim_new_same_other(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made_from = {"x": [1, 2]}
    assert claim(folder, "m.json", kind="thing", made_from=made_from, overwrite=False) == "new"
    write_manifest(folder / "m.json", kind="thing", made_from=made_from)
    assert claim(folder, "m.json", kind="thing", made_from={"x": [1, 2]}, overwrite=False) == "same"
    with pytest.raises(OpenIliasError, match=r"x: \[1, 2\] -> 3"):
        claim(folder, "m.json", kind="thing", made_from={"x": 3}, overwrite=False)
    assert folder.exists()
    assert claim(folder, "m.json", kind="thing", made_from={"x": 3}, overwrite=True) == "other"
    with pytest.raises(RuntimeError), replacing(folder, "other"):
        (folder / "new").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["m.json"]
    with replacing(folder, "other"):
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_cut_off_output_is_free_and_hidden_files_are_not_ours(tmp_path: Path) -> None:
    payload = tmp_path / "t.parquet"
    payload.write_bytes(b"half")
    (tmp_path / ".t.parquet.0123.partial").write_bytes(b"quarter")
    with pytest.raises(OpenIliasError, match="holds no thing"):
        claim(tmp_path, "m.json", kind="thing", made_from={}, overwrite=False)
    assert claim(tmp_path, "m.json", kind="thing", made_from={}, overwrite=False, ours=r"t\.parquet") == "new"
    payload.unlink()
    (tmp_path / ".git").mkdir()
    with pytest.raises(OpenIliasError, match="holds no thing"):
        claim(tmp_path, "m.json", kind="thing", made_from={}, overwrite=False, ours=r"t\.parquet")


def test_claim_never_touches_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(OpenIliasError, match="holds no thing"):
        claim(tmp_path, "m.json", kind="thing", made_from={}, overwrite=True)
    write_manifest(tmp_path / "m.json", kind="another", made_from={})
    with pytest.raises(OpenIliasError, match="Expected a thing, found another"):
        claim(tmp_path, "m.json", kind="thing", made_from={}, overwrite=True)
    with pytest.raises(OpenIliasError, match="is a file"):
        claim(tmp_path / "photo.jpg", "m.json", kind="thing", made_from={}, overwrite=True)
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_broken_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OpenIliasError) as caught:
        read_json(path)
    assert caught.value.where == str(path)


def test_json_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "é", "n": 1.5})
    assert read_json(tmp_path / "x.json") == {"name": "é", "n": 1.5}
    with pytest.raises(OpenIliasError, match="does not exist"):
        read_json(tmp_path / "y.json")
    with pytest.raises(OpenIliasError, match=r"has no m\.json"):
        read_manifest(tmp_path / "m.json", kind="thing")


def test_ids() -> None:
    assert object_of("zippy_043/query/Q043_00.jpg") == "zippy_043"
    assert distractor_shard("yfcc100m_0000.tar/abo_0000") == "yfcc100m_0000.tar"
    assert distractor_shard("distractors/a.jpg") is None
    assert is_distractor("distractors/a.jpg")
    assert is_distractor("x.tar/k")
    assert not is_distractor("zippy_043/pos/P043_00.jpg")


def test_progress_counts_on_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.core.progress._EVERY_SECONDS", 0.0)
    with progress("count", total=4, unit="things") as step:
        step()
        step(3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "count: 1 of 4" in captured.err
    assert "count: 4 of 4" in captured.err

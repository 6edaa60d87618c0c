"""Knowledge: what notes say of a defect, where they came from, and what was measured on references."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from model_helpers import fetched
from reference_helpers import drawn

from maskwright.errors import BrokenRunError, InputError, RunFolderError
from maskwright.memory import knowledge_notes
from maskwright.memory.knowledge import KnowledgeBase, open_knowledge
from maskwright.memory.knowledge_audit import audit
from maskwright.memory.knowledge_files import SHIPPED_FOLDER, read_notes, shipped_notes
from maskwright.memory.knowledge_notes import StoredNote
from maskwright.memory.knowledge_search import tokens_of
from maskwright.models.embeddings import MAX_TOKENS, token_count
from maskwright.tools import defects
from maskwright.tools.judging.reference_statistics import ReferenceStatistics, measure_references

OWN = """---
name: Schlieren
words: [Fließlinie]
families: [stain]
ranges: {size_ratio: [0.2, 0.3]}
places: [corner]
---
Breite, flache Schlieren am Rand.
"""
SCRATCH = "---\nname: scratch\nranges: {severity: [0.8, 0.9]}\n---\nOurs are deep.\n"


class WordEmbeddings(Embeddings):
    """Texts that share words are near; needs no model."""

    def embed_query(self, text: str) -> list[float]:
        vector = np.zeros(512)
        for word in tokens_of(text):
            vector[zlib.crc32(word.encode()) % 512] += 1
        return vector.tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def _open(folder: Path, is_test: Callable[[str], bool] = lambda sha256: False) -> KnowledgeBase:
    return open_knowledge(folder, WordEmbeddings(), "fake:words", is_test)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    return _open(tmp_path_factory.mktemp("Wissen ü"))


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    return _open(tmp_path / "knowledge")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _names(notes: Sequence[StoredNote]) -> list[str]:
    return [stored.note.name for stored in notes]


def test_words_mean_the_same_on_both_floors() -> None:
    assert get_args(knowledge_notes.Family) == get_args(defects.Family)
    assert get_args(knowledge_notes.Relief) == get_args(defects.Relief)
    assert get_args(knowledge_notes.Tone) == get_args(defects.Tone)


def test_shipped_notes_are_sound() -> None:
    notes = shipped_notes()
    assert audit(notes) == []
    defect_notes = [stored.note for stored in notes if stored.note.kind == "defect"]
    assert {family for note in defect_notes for family in note.families} == set(get_args(defects.Family))
    for note in defect_notes:
        assert note.families, note.name
        assert note.relief, note.name
        assert note.ranges.given().keys() >= {"size_ratio", "elongation", "irregularity", "severity"}, note.name
    for path in SHIPPED_FOLDER.glob("*.md"):
        assert 150 <= len(path.read_text(encoding="utf-8").split()) <= 330, path.name


@pytest.mark.parametrize(
    ("item", "defect", "material", "family"),
    [
        ("magnetic_tile", "blowhole", "ceramic", "hole"),
        ("magnetic tile", "MT_Crack", "ceramic", "crack"),
        ("ferrite_core", "fray", "ceramic", "discolouration"),
        ("woven rug", "frays", "textile", "thread"),
        ("steel_plate", "deep_scratches_2", "metal", "scratch"),
        ("wine-bottle", "broken_large", "glass", "chip"),
        ("widget", "missing parts", "", "missing_part"),
    ],
)
def test_a_defect_is_known_by_its_words(
    shipped: KnowledgeBase, item: str, defect: str, material: str, family: str
) -> None:
    known = shipped.search(item, defect)
    assert (known.material, known.families[0], known.is_guess) == (material, family, False)
    assert known.notes[0].why == "name"
    assert sum(known.place_weights) == pytest.approx(1)
    assert len(known.place_weights) == 9
    assert known.notes[0].stored.note.text in known.text


def test_an_unknown_defect_is_guessed_and_says_so(shipped: KnowledgeBase) -> None:
    known = shipped.search("widget", "a narrow ditch that a harder point makes while it slides")
    assert known.is_guess
    assert known.families[0] == "scratch"
    assert known.notes[0].why == "near"


def test_a_material_changes_what_is_said(shipped: KnowledgeBase) -> None:
    glass, steel = shipped.search("lens", "scratch"), shipped.search("steel bolt", "scratch")
    assert glass.ranges["elongation"] == (20, 120)
    assert steel.ranges["elongation"] == (8, 70)
    assert shipped.search("part 7", "scratch", material="glass").ranges == glass.ranges


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_top_k_bounds_the_notes_and_not_the_ranges(shipped: KnowledgeBase, top_k: int) -> None:
    known = shipped.search("lens", "scratch", top_k)
    assert len(known.notes) == top_k
    assert known.ranges == shipped.search("lens", "scratch").ranges


def test_the_same_question_gets_the_same_answer(base: KnowledgeBase, shipped: KnowledgeBase) -> None:
    assert base.fingerprint == shipped.fingerprint
    assert base.search("lens", "odd thing") == shipped.search("lens", "odd thing")


def test_own_notes_go_before_shipped_ones(base: KnowledgeBase, tmp_path: Path) -> None:
    before = base.search("lens", "scratch")
    base.add([_write(tmp_path / "Notizen ä" / "kratzer.md", SCRATCH)])
    after = base.search("lens", "scratch")
    assert after.ranges["severity"] == (0.8, 0.9)
    assert after.ranges["elongation"] == before.ranges["elongation"]
    assert after.families == before.families


def test_a_name_of_its_own_is_found_in_another_process(base: KnowledgeBase, tmp_path: Path) -> None:
    base.add([_write(tmp_path / "ß.md", OWN)])
    known = _open(tmp_path / "knowledge").search("Dose", "FLIESSLINIE_3")
    assert not known.is_guess
    assert known.families == ("stain",)
    assert known.place_weights == (0.25, 0, 0.25, 0, 0, 0, 0.25, 0, 0.25)


def test_adding_again_changes_nothing_and_a_changed_file_replaces(base: KnowledgeBase, tmp_path: Path) -> None:
    path = _write(tmp_path / "own.md", OWN)
    first = base.add([path])
    fingerprint = base.fingerprint
    again = base.add([path])
    assert (again.added, again.unchanged, again.replaced) == ((), first.added, ())
    assert base.fingerprint == fingerprint
    _write(path, OWN.replace("0.2, 0.3", "0.1, 0.3"))
    changed = base.add([path])
    assert changed.replaced == first.added
    assert _names(base.notes).count("Schlieren") == 1
    assert base.search("x", "Schlieren").ranges["size_ratio"] == (0.1, 0.3)


def test_a_removed_shipped_note_stays_away(base: KnowledgeBase, tmp_path: Path) -> None:
    [burr] = [stored for stored in base.notes if stored.note.name == "burr"]
    assert base.remove([burr.note_id, "no such id"]) == [burr]
    assert "burr" not in _names(_open(tmp_path / "knowledge").notes)


def test_notes_of_one_item_are_for_it_alone(base: KnowledgeBase, tmp_path: Path) -> None:
    note = "- {name: scratch, items: [Rohr_1], ranges: {severity: [1, 1]}, text: On the pipe.}\n"
    base.add([_write(tmp_path / "notes.yaml", note)])
    assert base.search("rohr 1", "scratch").ranges["severity"] == (1, 1)
    assert base.search("plate", "scratch").ranges["severity"] != (1, 1)


@pytest.mark.parametrize(
    ("name", "text", "line", "problem"),
    [
        ("a.md", "# Scratch\n", 1, "beginning of the front matter"),
        ("a.md", "---\nname: x\n", 3, "no end"),
        ("a.md", "---\nname: x\nwords: [a\n---\ntext\n", 3, "not YAML"),
        ("a.md", "---\nname: x\n---\n \n", 3, "no text follows"),
        ("a.md", "---\n- name: x\n---\ntext\n", 2, "expected keys"),
        ("a.md", "---\nname: x\n\nfamily: scratch\n---\ntext\n", 4, "Extra inputs"),
        ("a.md", "---\nname: x\nfamilies:\n  - scratch\n  - bruise\n---\ntext\n", 5, "families.1"),
        ("a.md", "---\nname: x\nranges:\n  size_ratio: [0.5, 0.1]\n---\ntext\n", 3, "least <= most"),
        ("a.md", "---\nname: x\nranges: {elongation: [0.5, 2]}\n---\ntext\n", 3, "elongation"),
        ("a.md", "---\nname: x\nplace_weights: [1, 2]\n---\ntext\n", 2, "expected 9 numbers"),
        ("a.md", "---\nkind: material\nname: x\nranges: {severity: [0, 1]}\n---\ntext\n", 2, "in a defect's note"),
        ("a.yaml", "- name: x\n  text: t\n- name: y\n  txt: t\n", 4, "Extra inputs"),
        ("a.yaml", "- name: x\n  text: t\n- just words\n", 3, "expected keys"),
        ("ü.yml", "name: a\nname: : b\n", 2, "not YAML"),
        ("a.yaml", "[]\n", 1, "an empty list"),
    ],
    ids=[
        "no front matter",
        "front matter without end",
        "open bracket",
        "no text",
        "a list",
        "unknown key",
        "unknown family",
        "turned range",
        "range out of bounds",
        "too few weights",
        "material with ranges",
        "unknown key in the second of a file",
        "words in a list of notes",
        "colon",
        "no entries",
    ],
)
def test_a_broken_note_is_named_with_its_line(tmp_path: Path, name: str, text: str, line: int, problem: str) -> None:
    path = _write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        read_notes([path])
    assert f"{path}, line {line}:" in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("picture.png", b"", "a .md, .yaml or .yml file"),
        ("gone.md", None, "No such file"),
        ("latin.md", "---\nname: ö".encode("latin-1"), "not UTF-8 at byte 10"),
        ("long.md", b"-" * 300_000, "at most 262144"),
        ("empty", "folder", "no .md"),
    ],
    ids=["a picture", "no file", "another encoding", "a book", "an empty folder"],
)
def test_what_is_no_note_is_refused(tmp_path: Path, name: str, content: bytes | str | None, problem: str) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_notes([path])


def test_a_bad_file_leaves_everything_as_it_was(base: KnowledgeBase, tmp_path: Path) -> None:
    good, bad = _write(tmp_path / "n" / "a.md", OWN), _write(tmp_path / "n" / "b.md", "no front matter")
    before = base.fingerprint
    with pytest.raises(InputError, match=r"b\.md, line 1"):
        base.add([good.parent])
    assert _open(tmp_path / "knowledge").fingerprint == before == base.fingerprint
    bad.unlink()
    assert base.add([good.parent, good]).added


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"\xef\xbb\xbf" + OWN.replace("\n", "\r\n").encode())
    [stored] = read_notes([path])
    assert stored.note == read_notes([_write(tmp_path / "b.md", OWN)])[0].note


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    _write(tmp_path / "thesis.txt", "mine")
    with pytest.raises(RunFolderError, match=r"thesis\.txt"):
        _open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_embeddings_are_refused(base: KnowledgeBase, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'fake:words', not 'fake:other'"):
        open_knowledge(tmp_path / "knowledge", WordEmbeddings(), "fake:other")


@pytest.mark.parametrize("damage", ["database", "marker"])
def test_damage_is_named(base: KnowledgeBase, tmp_path: Path, damage: str) -> None:
    if damage == "database":
        (tmp_path / "knowledge" / "chroma.sqlite3").unlink()
    else:
        _write(tmp_path / "knowledge" / "knowledge.json", "{")
    with pytest.raises(BrokenRunError, match="knowledge base cannot be used"):
        _open(tmp_path / "knowledge")


def test_an_empty_base_knows_nothing_and_says_so(base: KnowledgeBase) -> None:
    base.remove([stored.note_id for stored in base.notes])
    known = base.search("lens", "scratch")
    assert known.is_guess
    assert (known.families, known.ranges, known.notes, known.text) == ((), {}, (), "")
    assert sum(known.place_weights) == pytest.approx(1)


def test_audit_tells_where_sources_stand(base: KnowledgeBase, tmp_path: Path) -> None:
    kept, changed, gone = (
        _write(tmp_path / f"{name}.md", f"---\nname: {name}\nfamilies: [stain]\n---\n{text}\n")
        for name, text in [("kept", "As it was."), ("changed", "An oily film."), ("gone", "Grey bloom.")]
    )
    base.add([kept, changed, gone])
    changed.write_text("---\nname: changed\n---\nAnother.\n", encoding="utf-8")
    gone.unlink()
    assert [(one.problem, one.name) for one in audit(base.notes)] == [("changed", "changed"), ("missing", "gone")]


@pytest.mark.parametrize(
    ("text", "test_names", "problems"),
    [
        ("As in 004.png, at the left.", ["crack/004.png"], ["test_name"]),
        ("As in exp1_num_17, at the left.", ["exp1_num_17.jpg"], ["test_name"]),
        ("It has 004 teeth.", ["crack/004.png"], []),
        ("As in 1004.png, a reference.", ["004.png"], []),
    ],
    ids=["file name", "telling stem", "a mere number", "another file"],
)
def test_audit_finds_mentions_of_test_files(
    tmp_path: Path, text: str, test_names: list[str], problems: list[str]
) -> None:
    notes = read_notes([_write(tmp_path / "a.md", f"---\nname: x\n---\n{text}\n")])
    assert [one.problem for one in audit(notes, test_names)] == problems


def test_audit_finds_duplicates_and_unknown_materials(tmp_path: Path) -> None:
    for name, extra in [("a", ""), ("b", "materials: [unobtainium]\n")]:
        _write(tmp_path / f"{name}.md", f"---\nname: x\n{extra}---\nA long dark line across the face.\n")
    findings = audit(read_notes([tmp_path]))
    assert [one.problem for one in findings] == ["unknown_material", "duplicate"]
    assert "unobtainium" in findings[0].detail
    assert str(tmp_path / "a.md") in findings[1].detail


def test_no_test_file_gets_in(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.md", OWN)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    base = _open(tmp_path / "knowledge", {digest, "f" * 64}.__contains__)
    before = base.fingerprint
    with pytest.raises(InputError, match=digest):
        base.add([path])
    with pytest.raises(InputError, match="1 of 2 files are test files"):
        base.add_measured("pipe", "scratch", _measured(), ["a" * 64, "f" * 64])
    assert base.fingerprint == before
    [finding] = audit(read_notes([path]), is_test={digest}.__contains__)
    assert finding.problem == "test_file"


def _measured() -> ReferenceStatistics:
    return measure_references(*drawn([(16, 12, 12, 3, 0)] * 6, value=40))


def test_measured_references_go_before_all_notes(base: KnowledgeBase, tmp_path: Path) -> None:
    base.add([_write(tmp_path / "own.md", "---\nname: scratch\nranges: {size_ratio: [0.3, 0.4]}\n---\nBig.\n")])
    first = base.add_measured("pipe", "scratch", _measured(), ["a" * 64])
    known = base.search("pipe", "scratch")
    assert known.ranges["size_ratio"] == _measured().plan_ranges()["size_ratio"]
    assert known.families == ("scratch",)
    assert known.tone == ("darker",)
    assert known.place_weights == (1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert len(known.shapes) == 1  # of six that are alike
    assert known.shapes[0].contrast == pytest.approx(_measured().shapes[0].contrast, abs=0.001)
    assert known.shapes[0].elongation == pytest.approx(_measured().shapes[0].elongation, abs=0.01)
    assert base.search("plate", "scratch").shapes == ()
    assert "6 reference pictures" in known.text
    assert base.search("plate", "scratch").ranges["size_ratio"] == (0.3, 0.4)
    assert base.add_measured("pipe", "scratch", _measured(), ["b" * 64]).unchanged == first.added
    other = measure_references(*drawn([(40, 30, 14, 3, 0)] * 6, value=40))
    assert base.add_measured("pipe", "scratch", other, ["c" * 64]).replaced == first.added


def test_a_measured_defect_of_unknown_looks_is_still_a_guess(base: KnowledgeBase) -> None:
    base.add_measured("pipe", "zork", _measured(), ["a" * 64])
    known = base.search("pipe", "zork")
    assert known.is_guess
    assert known.families
    assert [found.why for found in known.notes][:3] == ["name", "near", "near"]
    assert known.ranges["size_ratio"] == _measured().plan_ranges()["size_ratio"]


def test_what_was_measured_can_be_left_out(base: KnowledgeBase) -> None:
    before = base.search("pipe", "scratch").ranges
    base.add_measured("pipe", "scratch", _measured(), ["a" * 64])
    assert base.search("pipe", "scratch").ranges != before
    assert base.search("pipe", "scratch", measured=False).ranges == before


def test_two_writers_lose_nothing(base: KnowledgeBase, tmp_path: Path) -> None:
    def add(number: int) -> None:
        text = f"---\nname: kind{number}\nfamilies: [stain]\n---\nThe {number}th.\n"
        _open(tmp_path / "knowledge").add([_write(tmp_path / f"{number}.md", text)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(6)))
    assert {f"kind{number}" for number in range(6)} <= set(_names(_open(tmp_path / "knowledge").notes))


@pytest.mark.slow
def test_meaning_finds_what_no_word_names(tmp_path: Path) -> None:
    fetched("minilm")
    known = open_knowledge(tmp_path / "knowledge").search("sofa cushion", "bird droppings")
    assert known.is_guess
    assert {"stain", "contamination"} & set(known.families)
    assert all(token_count(stored.note.digest_text) <= MAX_TOKENS for stored in shipped_notes())

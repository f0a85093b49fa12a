"""pandas in and out: the same index, a row for each text or each thing found, and missing texts that stay missing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlaas.client import AsyncClient, Client, StreamBroken, to_frame
from mlaas.errors import InvalidRequest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(gateway: str) -> Iterator[Client]:
    with Client(gateway) as client:
        yield client


@pytest.fixture
def texts() -> pd.DataFrame:
    return pd.DataFrame({"affiliation": ["INFN Frascati", None, "INFN CNAF"]}, index=["a", "b", "c"])


def test_a_series_gives_a_table_with_the_same_index(client: Client, texts: pd.DataFrame) -> None:
    found = client.classify(texts["affiliation"], model="infn-structures", top_k=2)
    assert list(found.index) == ["a", "b", "c"]
    assert list(found.columns) == ["label", "score", "scores", "truncated"]
    assert found["label"].fillna("-").tolist() == ["LNF", "-", "CNAF"]
    assert len(found.loc["a", "scores"]) == 2
    assert texts.join(found).loc["c", ["affiliation", "label"]].tolist() == ["INFN CNAF", "CNAF"]


def test_a_data_frame_needs_its_column(client: Client, texts: pd.DataFrame) -> None:
    expected = client.classify(texts["affiliation"], model="infn-structures")
    pd.testing.assert_frame_equal(client.classify(texts, "affiliation", model="infn-structures"), expected)
    pd.testing.assert_frame_equal(client.classify(texts, column="affiliation", model="infn-structures"), expected)
    for wrong in ({"column": "address"}, {}):
        with pytest.raises(InvalidRequest, match="column") as refused:
            client.classify(texts, model="infn-structures", **wrong)  # type: ignore[call-overload]
        assert "`affiliation`" in str(refused.value.remedy)
    with pytest.raises(InvalidRequest, match="row 1 is no text but a int"):
        client.classify(pd.Series(["a", 7]), model="infn-structures")


def test_more_rows_than_one_request_may_have_keep_their_order(client: Client) -> None:
    series = pd.Series(["INFN Frascati", "INFN CNAF"] * 150, index=range(1000, 1300))
    assert client.classify(series, model="infn-structures")["label"].tolist() == ["LNF", "CNAF"] * 150
    found = client.search(series, index="abstracts", top_k=2)
    assert (len(found), found.index.tolist()[:4]) == (600, [1000, 1000, 1001, 1001])


def test_every_capability_has_its_columns_also_for_no_rows(client: Client, texts: pd.DataFrame) -> None:
    series = texts["affiliation"]
    for frame in (client.search(series, index="abstracts", top_k=2), client.search(series.iloc[:0], index="abstracts")):
        assert list(frame.columns) == ["rank", "id", "score", "text", "metadata"]
    found = client.search(series, index="abstracts", top_k=2)
    assert found.index.tolist() == ["a", "a", "c", "c"], "a text that is missing finds nothing"
    assert found["rank"].tolist() == [1, 2, 1, 2]
    assert client.embed(series, model="minilm").shape == (3, 16)
    assert client.embed(series, model="minilm").loc["b"].isna().all()
    assert list(client.ner(series, model="physics-ner").columns) == ["text", "label", "score", "start", "end"]
    filled = client.fill_mask(series + " [MASK] and [MASK]", model="physics-lm")
    assert [len(tokens) for tokens in filled["tokens"].dropna()] == [2, 2]
    contexts = ["LNF is in Frascati.", "nothing", "CNAF is in Bologna."]
    answered = client.answer(series, contexts, model="laboratories")
    assert [text in context for text, context in zip(answered["answer"].dropna(), contexts[::2], strict=True)] == [True, True]
    assert list(client.generate(series, model="physics-writer").columns) == ["text", "tokens", "finish"]


def test_a_row_that_is_refused_is_named_by_its_place_in_the_table(client: Client) -> None:
    series = pd.Series(["a", None, None, "b", "x" * 200_000, "c"])
    with pytest.raises(StreamBroken) as broken:
        client.classify(series, model="infn-structures")
    assert (broken.value.row, broken.value.field) == (4, "texts.4")
    assert "`stream`" in str(broken.value.remedy)


def test_a_result_becomes_a_table(client: Client) -> None:
    assert to_frame(client.classify(["INFN Frascati"], model="infn-structures"), ["x"]).loc["x", "label"] == "LNF"
    assert to_frame(client.search(["higgs", "neutrinos"], index="abstracts", top_k=3)).index.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(TypeError, match="not the result"):
        to_frame(client.models.get("minilm"))


def test_a_series_can_be_awaited(gateway: str, texts: pd.DataFrame) -> None:
    async def use() -> pd.DataFrame:
        async with AsyncClient(gateway) as client:
            return await client.classify(texts["affiliation"], model="infn-structures")

    assert asyncio.run(use())["label"].dropna().tolist() == ["LNF", "CNAF"]


def test_without_pandas_everything_else_works_and_a_table_says_what_to_install(gateway: str) -> None:
    program = f"""
import sys
sys.modules["pandas"] = None  # as where it is not installed
from mlaas.client import Client, to_frame
with Client({gateway!r}) as client:
    result = client.classify("INFN Frascati", model="infn-structures")
    print(result.predictions[0].label)
    try:
        to_frame(result)
    except Exception as error:
        print(error.detail, error.remedy)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines() == ["LNF", "pandas is not installed Install it: pip install 'mlaas[pandas]'."], ran.stderr


TYPED = """
import pandas as pd
from mlaas.client import AsyncClient, Client, Task
from mlaas.contracts import Classification, ClassifyResult, SearchResult

def use(client: Client, frame: pd.DataFrame) -> None:
    result: ClassifyResult = client.classify(["a"], model="m", top_k=3)
    table: pd.DataFrame = client.classify(frame["text"], model="m")
    other: pd.DataFrame = client.classify(frame, "text", model="m")
    found: SearchResult = client.search("a", index="i", hybrid=True)
    for one in client.classify.stream(iter(["a"]), model="m"):
        label: str | None = one.label
    task: Task = client.train({}).wait(progress=True)
    names: list[str] = [entry.name for entry in client.models.list("physics", sort="downloads")]
    version: str = client.models.alias("m", "production", 3).version

async def use_async(client: AsyncClient) -> None:
    result: ClassifyResult = await client.classify(["a"], model="m")
    async for one in client.classify.stream(["a"], model="m"):
        item: Classification = one
    entries = await client.models.list()
    name: str = entries[0].name
"""
WRONG = """
from mlaas.client import AsyncClient, Client

def use(client: Client, awaited: AsyncClient) -> None:
    client.classify(["a"])
    client.classify(["a"], model="m", topk=3)
    client.classify(["a"], model=7)
    client.models.list(sort="colour")
    client.models.alias("m", "production")
    label: int = client.classify(["a"], model="m").predictions[0].label
    awaited.classify(["a"], model="m").predictions
"""


def test_calls_are_typed(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
    ]
    ran = subprocess.run(
        [*command, "typed.py", "wrong.py"], cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT / "shared"), "PATH": ""}
    )
    lines = [line.partition(": error")[0] for line in ran.stdout.splitlines() if ": error" in line]
    assert list(dict.fromkeys(lines)) == [f"wrong.py:{number}" for number in range(5, 12)], ran.stdout + ran.stderr

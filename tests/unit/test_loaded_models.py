"""Models of one process share its memory: the least recently used makes room."""

from __future__ import annotations

import pytest

from mlaas.models import Loaded


def loaded(count: int = 10, size: int = 100) -> Loaded[str]:
    return Loaded("model", lambda: count, lambda: size)


def reloads(cache: Loaded[str], key: str, size: int = 0) -> bool:
    """Whether `key` has to be loaded (again)."""
    calls: list[str] = []
    cache.get(key, lambda: calls.append(key) or key, lambda: size)  # type: ignore[func-returns-value]
    return bool(calls)


def test_the_least_recently_used_makes_room_in_bytes() -> None:
    cache = loaded()
    for key, size in (("a", 40), ("b", 40)):
        assert reloads(cache, key, size)
    assert not reloads(cache, "a", 40)
    assert reloads(cache, "c", 40)
    assert not reloads(cache, "a", 40)
    assert reloads(cache, "b", 40)


def test_the_least_recently_used_makes_room_in_number() -> None:
    cache = loaded(count=2)
    assert [reloads(cache, key) for key in "abca"] == [True, True, True, True]
    assert not reloads(cache, "c")


def test_room_is_made_before_the_next_is_loaded() -> None:
    cache = loaded()
    cache.get("a", lambda: "a", lambda: 60)
    held: list[int] = []
    cache.get("b", lambda: held.append(len(cache._items)) or "b", lambda: 60)  # type: ignore[func-returns-value]
    assert held == [0]


def test_one_takes_the_place_of_another_unless_that_was_given_up_meanwhile() -> None:
    cache = loaded(count=1)
    cache.get("a", lambda: "a", lambda: 10)
    cache.replace("a", "a", "faster")
    assert cache.get("a", lambda: "again") == "faster"
    cache.get("b", lambda: "b")
    cache.replace("a", "faster", "late")
    assert list(cache._items.values()) == ["b"]


def test_one_that_is_larger_than_the_limit_is_loaded_alone() -> None:
    cache = loaded()
    cache.get("a", lambda: "a", lambda: 10)
    cache.get("big", lambda: "big", lambda: 1000)
    assert list(cache._items) == ["big"]
    assert not reloads(cache, "big", 1000)


def test_what_could_not_be_loaded_takes_no_room() -> None:
    cache = loaded()
    with pytest.raises(ZeroDivisionError):
        cache.get("bad", lambda: str(1 // 0), lambda: 90)
    cache.get("a", lambda: "a", lambda: 60)
    cache.get("b", lambda: "b", lambda: 40)
    assert list(cache._items) == ["a", "b"]


def test_nothing_counts_after_all_was_given_up() -> None:
    cache = loaded()
    cache.get("a", lambda: "a", lambda: 90)
    cache.clear()
    cache.get("b", lambda: "b", lambda: 60)
    cache.get("c", lambda: "c", lambda: 40)
    assert list(cache._items) == ["b", "c"]

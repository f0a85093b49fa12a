"""What is counted, and how Prometheus reads it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlaas import instruments, metrics
from mlaas.errors import Unavailable
from mlaas.instruments import Counter, Gauge, Histogram


def samples(*measured: Counter | Gauge | Histogram, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.setattr(metrics, "ALL", measured)
    families = text_string_to_metric_families(metrics.render().decode())
    found = {
        f"{one.name}{one.labels or ''}": one.value for family in families for one in family.samples if not one.name.startswith("process_")
    }
    assert not any(name.endswith("_created") for name in found)
    return found


def test_a_counter_counts_by_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter("x_total", "x.", ("a", "b"))
    counter.add("1", "2")
    counter.add("1", "2", by=2)
    counter.add("1", "3")
    assert samples(counter, monkeypatch=monkeypatch) == {"x_total{'a': '1', 'b': '2'}": 3.0, "x_total{'a': '1', 'b': '3'}": 1.0}


def test_a_histogram_counts_what_is_at_most_each_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    histogram = Histogram("x_seconds", "x.", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert samples(histogram, monkeypatch=monkeypatch) == {
        "x_seconds_bucket{'le': '1.0'}": 2.0,
        "x_seconds_bucket{'le': '2.0'}": 3.0,
        "x_seconds_bucket{'le': '+Inf'}": 4.0,
        "x_seconds_count": 4.0,
        "x_seconds_sum": 12.0,
    }


def test_a_gauge_is_read_when_it_is_scraped_and_left_out_when_that_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gauge, values = Gauge("x", "x.", ("state",)), {("a",): 1.0}
    gauge.read_with(lambda: values)
    assert samples(gauge, monkeypatch=monkeypatch) == {"x{'state': 'a'}": 1.0}
    values[("a",)] = 5.0
    assert samples(gauge, monkeypatch=monkeypatch) == {"x{'state': 'a'}": 5.0}

    def away() -> dict[tuple[str, ...], float]:
        raise Unavailable("the store is away")

    gauge.read_with(away)
    assert samples(gauge, monkeypatch=monkeypatch) == {}
    assert [record.message for record in caplog.records] == ["metrics.not_read"]


def test_what_was_never_measured_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert samples(Counter("x_total", "x."), Histogram("y", "y.", (1.0,)), Gauge("z", "z."), monkeypatch=monkeypatch) == {}


def test_metrics_are_named_as_prometheus_asks() -> None:
    names = [one.name for one in metrics.ALL]
    assert len(set(names)) == len(names)
    for one in metrics.ALL:
        assert one.name.startswith("mlaas_")
        assert one.name.endswith("_total") == isinstance(one, Counter)
        assert one.help.endswith(".")
    assert {value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)} == set(metrics.ALL)


def test_the_age_of_a_process_counts_from_its_start_not_from_the_import() -> None:
    program = "import time; time.sleep(0.5); from mlaas import metrics; print(metrics.process_age())"
    started = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.48 <= float(ran.stdout) <= time.monotonic() - started + 0.02  # the kernel counts in hundredths of a second


def test_nothing_of_prometheus_is_imported_to_count() -> None:
    program = f"import sys; from {instruments.__name__} import Counter; Counter('x_total', 'x.').add(); from mlaas import metrics; metrics.TEXTS.add(); print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "False"

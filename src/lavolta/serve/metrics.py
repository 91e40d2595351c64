"""Metrics in the text format of Prometheus, made at every scrape from what was recorded: no request pays for them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lavolta.serve.recorder import Histogram
from lavolta.serve.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(service: Service) -> bytes:
    """All metrics; docs/reference/http.md has their names. What is not known is left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Recorded(service))
    return generate_latest(registry)


class _Recorded(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        yield from self._counts()
        yield from self._device()
        yield from self._answers()

    def _counts(self) -> Iterable[Metric]:
        totals = self._service.recorder.totals()
        answers = CounterMetricFamily("lavolta_answers", "Answers by the level that gave them.", labels=["level"])
        for level, count in totals.levels.items():
            answers.add_metric([level], count)
        yield answers
        refused = CounterMetricFamily("lavolta_refused", "Requests without an answer, by cause.", labels=["cause"])
        for cause, count in totals.refused.items():
            refused.add_metric([cause], count)
        yield refused
        for name, words, count in (
            ("lavolta_deadline_misses", "Answers after their deadline.", totals.late),
            ("lavolta_cut_short", "Answers that finished at sparser levels to be in time.", totals.cut_short),
        ):
            yield CounterMetricFamily(name, words, value=count)
        words = "Predicted energy of all runs, idle time left out."
        yield CounterMetricFamily("lavolta_run_energy_joules", words, value=totals.energy_mj / 1e3)

    def _device(self) -> Iterable[Metric]:
        reading = self._service.recorder.reading
        if reading is None:
            return
        for name, words, value in (
            ("lavolta_charge_ratio", "What is left in the battery, of a full one.", reading.charge_share),
            ("lavolta_charge_joules", "The same as energy.", _scaled(reading.charge_mwh, 3.6)),
            ("lavolta_power_watts", "What the device draws.", _scaled(reading.power_mw, 1e-3)),
            ("lavolta_on_mains", "1 where something else than the battery feeds the device.", reading.on_ac),
            ("lavolta_temperature_celsius", "The hottest sensor of the processor.", reading.temperature_c),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, words, value=float(value))
        clocks = GaugeMetricFamily("lavolta_frequency_hertz", "Present clock by cluster.", labels=["cluster"])
        for cluster, freq_mhz in reading.freq_mhz.items():
            clocks.add_metric([cluster], freq_mhz * 1e6)
        yield clocks

    def _answers(self) -> Iterable[Metric]:
        service, recent, last = self._service, self._service.recorder.recent(), self._service.recorder.last()
        recorder = service.recorder
        yield _histogram("lavolta_response_seconds", "From the arrival to the answer.", recorder.response_ms)
        yield _histogram("lavolta_run_seconds", "The run alone.", recorder.run_ms)
        level = GaugeMetricFamily("lavolta_level", "1 for the level of the last answer.", labels=["level"])
        for known in service.governed.governor.scenario.levels:
            level.add_metric([known.name], float(last is not None and last["level"] == known.name))
        yield level
        for name, words, value in (
            ("lavolta_deadline_seconds", "Allowed time of one answer.", service.deadline_ms / 1e3),
            ("lavolta_queue_depth", "Requests that wait or run.", service.depth),
            ("lavolta_queue_limit", "Requests that may wait.", service.limit),
            (
                "lavolta_energy_per_inference_joules",
                "Predicted energy of a run, mean of the last answers.",
                _scaled(recent["energy_mj"], 1e-3),
            ),
            (
                "lavolta_drawn_per_inference_joules",
                "What the battery gave for an answer since the start, idle time included.",
                _scaled(recent["drawn_mj_per_answer"], 1e-3),
            ),
            (
                "lavolta_run_over_predicted_ratio",
                "Measured over predicted run time, median of the last answers.",
                recent["run_over_predicted"],
            ),
            (
                "lavolta_energy_over_predicted_ratio",
                "Measured over predicted energy, as learned.",
                recent["energy_over_predicted"],
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, words, value=float(value))


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _histogram(name: str, words: str, histogram: Histogram) -> Metric:
    bounds = [f"{bound / 1e3:.6g}" for bound in histogram.bounds]
    buckets = [(bound, float(count)) for bound, count in zip([*bounds, "+Inf"], histogram.cumulative(), strict=True)]
    return HistogramMetricFamily(name, words, buckets=buckets, sum_value=histogram.total / 1e3)

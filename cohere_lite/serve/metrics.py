"""What has been done, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of this process. For the event loop's thread alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # by route and status
        self.audio_s = 0.0
        # by route: a live session takes as long as its client speaks
        self._latencies: dict[str, list[int]] = {}
        self._latency_s: dict[str, float] = {}

    def answered(self, route: str, status: str, seconds: float, audio_s: float) -> None:
        """A request is over. seconds: from its first byte to the end of the answer;  audio_s: recognised for it"""
        self.requests[route, status] += 1
        self.audio_s += audio_s
        self._latency_s[route] = self._latency_s.get(route, 0.0) + seconds
        latencies = self._latencies.setdefault(route, [0] * (len(_BUCKETS_S) + 1))
        latencies[bisect_left(_BUCKETS_S, seconds)] += 1

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """gauges: name -> what it is, its value now."""
        lines = _head("requests_total", "counter", "Requests answered, by route and status.")
        for (route, status), n in sorted(self.requests.items()):
            lines.append(f'cohere_lite_requests_total{{route="{route}",status="{status}"}} {n}')
        lines += _head("audio_seconds_total", "counter", "Seconds of audio recognised.")
        lines.append(f"cohere_lite_audio_seconds_total {self.audio_s:.3f}")
        for name, (what, value) in gauges.items():
            lines += [*_head(name, "gauge", what), f"cohere_lite_{name} {value:g}"]
        lines += _head("request_seconds", "histogram", "Seconds from a request's first byte to the end of its answer.")
        for route, latencies in sorted(self._latencies.items()):
            total = 0
            for most, n in zip((*_BUCKETS_S, "+Inf"), latencies, strict=True):
                total += n
                lines.append(f'cohere_lite_request_seconds_bucket{{route="{route}",le="{most}"}} {total}')
            lines.append(f'cohere_lite_request_seconds_sum{{route="{route}"}} {self._latency_s[route]:.3f}')
            lines.append(f'cohere_lite_request_seconds_count{{route="{route}"}} {total}')
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP cohere_lite_{name} {what}", f"# TYPE cohere_lite_{name} {kind}"]

"""Measures a gateway from outside while others load it: connect to hello, and /health; prints percentiles as JSON.

Run as ``python -m tests.soak.probe PORT SECONDS`` with the token on standard input. Bounded by the seconds.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from scripts.benchmarks.load import Session


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    return round(values[min(len(values) - 1, int(len(values) * share))], 5)


def main() -> None:
    port, seconds, token = int(sys.argv[1]), float(sys.argv[2]), sys.stdin.read().strip()
    hellos: list[float] = []
    healths: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        session = Session(port)
        session.hello(token)
        hellos.append(time.perf_counter() - began)
        session.close()
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200"), answer
        healths.append(time.perf_counter() - began)
        time.sleep(0.01)
    print(
        json.dumps(
            {
                "count": len(hellos),
                "helloMedian": percentile(hellos, 0.5),
                "helloP99": percentile(hellos, 0.99),
                "helloMax": round(max(hellos), 5),
                "healthMedian": percentile(healths, 0.5),
                "healthP99": percentile(healths, 0.99),
                "healthMax": round(max(healths), 5),
            }
        )
    )


if __name__ == "__main__":
    main()

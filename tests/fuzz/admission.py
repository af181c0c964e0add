"""Mutated AdmissionReviews through the webhook: `python -m tests.fuzz.admission CORPUS [FLAGS]`.

Coverage-guided (atheris); flags are libFuzzer's. Every input is a request to a path: a review
whose parts were exchanged for others, or bytes. What must hold of the answer is `reviews.hold`: a
review of the right uid whose patch applies, or a 4xx.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["webhook", "nightcap.contract"]):
    from tests.unit.webhook.reviews import SEEDS, hold, replaced, walk

_WORDS = (
    *("nightcap", "nightcap-token", "nightcap-orders", "windows", "Always", "Guaranteed"),
    *("1e99", "-1", "100m", "64Mi", "0", "", "on", "off", "disabled", "NET_RAW", "DELETE"),
    *("kubernetes.io/config.mirror", "nightcap.dev/orders", "nightcap.dev/filter", "name", "spec"),
)


def junk(source: Any, depth: int = 0) -> Any:
    """Some JSON."""
    match source.ConsumeIntInRange(0, 9 if depth < 3 else 6):
        case 0:
            return None
        case 1:
            return source.ConsumeBool()
        case 2:
            return source.ConsumeInt(8)
        case 3:
            return source.ConsumeRegularFloat()
        case 4 | 5:
            return source.PickValueInList(list(_WORDS))
        case 6:
            return source.ConsumeUnicodeNoSurrogates(12)
        case 7:
            return [junk(source, depth + 1) for _ in range(source.ConsumeIntInRange(0, 3))]
        case _:
            names = (source.PickValueInList(list(_WORDS)) for _ in range(3))
            return {name: junk(source, depth + 1) for name in names}


def one_input(data: bytes) -> None:
    """Mutate one of the seeds as the bytes say."""
    source = atheris.FuzzedDataProvider(data)
    path, review = SEEDS[source.ConsumeIntInRange(0, len(SEEDS) - 1)]
    if source.ConsumeIntInRange(0, 15) == 0:
        hold(path, source.ConsumeBytes(source.remaining_bytes()))
        return
    for _ in range(source.ConsumeIntInRange(1, 4)):
        places = list(walk(review))
        place = places[source.ConsumeIntInRange(0, len(places) - 1)]
        review = replaced(review, place, junk(source))
    hold(path, json.dumps(review).encode())


if __name__ == "__main__":
    logging.disable()
    folder = Path(sys.argv[1])
    for number in range(256):  # one of each kind to begin with
        (folder / f"seed-{number}").write_bytes(bytes([number, number * 7 % 256]) * 24)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

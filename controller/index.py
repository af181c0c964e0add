"""Which captures may select a pod, without asking each of a thousand."""

from collections.abc import Iterator

from controller.view import Judged
from nightcap.contract import keys
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.selectors import LabelSelector

_BY_ANNOTATION = (keys.SOURCE_POD, keys.SOURCE_CONTROLLER)

_Drawer = tuple[str, ...]
"""Where a capture is filed: ("label", key, value), ("name", pod), ("annotated",) or ("any",)."""
_ANY: _Drawer = ("any",)
_ANNOTATED: _Drawer = ("annotated",)


class CaptureIndex:
    """The captures of one namespace, filed by the cheapest thing that a pod must have.

    `candidates` names every capture that selects a pod and some that do not; whether one does
    is `nightcap.contract.assignment.selects` alone to say.
    """

    def __init__(self) -> None:
        self._drawers: dict[_Drawer, dict[str, Judged]] = {}
        self._filed: dict[str, tuple[_Drawer, ...]] = {}

    def put(self, judged: Judged) -> None:
        """Take a capture, new or changed."""
        self.remove(judged.uid)
        drawers = _drawers_of(judged)
        self._filed[judged.uid] = drawers
        for drawer in drawers:
            self._drawers.setdefault(drawer, {})[judged.uid] = judged

    def remove(self, uid: str) -> None:
        """Forget a capture."""
        for drawer in self._filed.pop(uid, ()):
            filed = self._drawers[drawer]
            filed.pop(uid, None)
            if not filed:
                del self._drawers[drawer]

    def candidates(self, pod: ObjectMeta) -> Iterator[Judged]:
        """Those that may select a pod; none of them twice."""
        found: dict[str, Judged] = {}
        for drawer in _drawers_for(pod):
            found.update(self._drawers.get(drawer, ()))
        yield from found.values()


def _drawers_of(judged: Judged) -> tuple[_Drawer, ...]:
    capture = judged.capture
    spec = capture.spec
    names = tuple(("name", name) for name in dict.fromkeys(spec.pod_names))
    if capture.source in _BY_ANNOTATION:
        return (_ANNOTATED, *names)
    if names:
        return names
    if isinstance(spec.selector, LabelSelector) and spec.selector.match_labels:
        key, value = next(iter(spec.selector.match_labels.items()))
        return (("label", key, value),)
    return (_ANY,)


def _drawers_for(pod: ObjectMeta) -> Iterator[_Drawer]:
    yield _ANY
    yield "name", pod.name
    if pod.annotation(keys.CAPTURE) is not None:
        yield _ANNOTATED
    for key, value in (pod.labels or {}).items():
        yield "label", key, value

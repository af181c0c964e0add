"""What `reconcile` comes to for one namespace, kept up to date at the cost of what changes.

`controller.reconcile.reconcile` is the definition and looks at every pod and capture. With
ten thousand pods and an event from one of them, almost all of that is known already: a ledger
holds the plan of each pod and of each capture, and makes anew those that an event, a report or
the clock touches. After any events its plans are those of `reconcile`; the tests compare them.
"""

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from controller.actions import Action, PatchOrders
from controller.annotations import AnnotationPlan, plan_annotations
from controller.index import CaptureIndex
from controller.reconcile import (
    CapturePlan,
    Plan,
    PodPlan,
    next_edge,
    plan_capture,
    plan_pod,
)
from controller.status import WRITE_EVERY_SECONDS
from controller.tally import PodFacts
from controller.view import NEVER, Judged, NamespaceView, crowded
from nightcap.contract import keys
from nightcap.contract.assignment import selects
from nightcap.contract.objects import Pod

BATCH: Final = 500
"""Pods in one pass: what is decided is being written while the rest is decided."""

_POD, _STATUS, _EDGE, _ANNOTATIONS, _AGAIN = "pod", "status", "edge", "annotations", "again"
_Subject = tuple[str, str]


@dataclass(frozen=True, slots=True)
class News:
    """What has happened in a namespace since it was last looked at.

    Attributes:
        pods: By uid; None for one that is gone.
        captures: By uid; None for one that is gone.
        reports: (capture uid, pod uid) whose report is new.
        again: Uid of a pod or capture whose write did not succeed -> when to plan it again, in
            seconds since the epoch; "" for one that is not there yet.
        surroundings: Whether the namespace itself, its ceiling, or how collectors answer changed.
        everything: Whether `pods` and `captures` are all that there is; the rest is forgotten.
    """

    pods: Mapping[str, Pod | None] = field(default_factory=dict)
    captures: Mapping[str, Judged | None] = field(default_factory=dict)
    reports: Collection[tuple[str, str]] = ()
    again: Mapping[str, float] = field(default_factory=dict)
    surroundings: bool = False
    everything: bool = False


class Ledger:
    """The plans of one namespace; for one thread."""

    def __init__(self) -> None:
        self._seen_at = 0.0
        self._clear()

    def _clear(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._judged: dict[str, Judged] = {}
        # The same, those marked for which the namespace's ceiling leaves no place.
        self._captures: dict[str, Judged] = {}
        self._annotated: dict[str, Pod] = {}
        self._index = CaptureIndex()
        self._pod_plans: dict[str, PodPlan] = {}
        self._capture_plans: dict[str, CapturePlan] = {}
        self._annotations = AnnotationPlan()
        self._selected: dict[str, dict[str, PodFacts]] = {}
        self._holders: dict[str, set[str]] = {}
        # What is to be planned anew; a dict where the order of arrival counts.
        self._due_pods: dict[str, None] = {}
        # The same, of pods that nothing has happened to: all were looked at.
        self._backlog: dict[str, None] = {}
        self._due_captures: set[str] = set()
        self._due_annotations = True
        self._alarms: list[tuple[float, _Subject]] = []

    @property
    def outstanding(self) -> tuple[Action, ...]:
        """Everything that is to be done as of the last pass, whether or not it was begun."""
        pods = chain.from_iterable(plan.actions for plan in self._pod_plans.values())
        captures = (plan.action for plan in self._capture_plans.values() if plan.action is not None)
        return (*pods, *self._annotations.actions, *captures)

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a pod nor a capture."""
        return not self._pods and not self._captures

    @property
    def waiting_pods(self) -> int:
        """Pods that were left for the next pass."""
        return len(self._due_pods) + len(self._backlog)

    def update(self, news: News, view: NamespaceView, now: float, batch: int = BATCH) -> Plan:
        """Take news in, and plan anew what they and the clock touch.

        Args:
            news: Since the last call.
            view: The namespace now; `captures` and `pods` of it are not looked at.
            now: Seconds since the epoch.
            batch: Most pods that are planned in this pass.

        Returns:
            What has to be done for what was planned; where pods were left for the next pass,
            that is to be at once.
        """
        if now < self._seen_at and not news.everything:
            # The clock was set back: what was over may not be.
            news = replace(
                news,
                pods={**self._pods, **news.pods},
                captures={**self._judged, **news.captures},
                everything=True,
            )
        if news.everything:
            self._clear()
        self._seen_at = now
        self._take(news, now)
        if news.everything:
            self._backlog, self._due_pods = self._due_pods, {}
        self._ring(now)
        self._count_captures(view, now)
        view = replace(view, captures=tuple(self._captures.values()), pods=())
        actions = self._plan_pods(view, now, batch)
        if self.waiting_pods:
            return Plan(tuple(actions), now)
        actions += self._plan_annotations(view, now)
        actions += self._plan_captures(view, now)
        return Plan(tuple(actions), self._alarms[0][0] if self._alarms else NEVER)

    # News.

    def _take(self, news: News, now: float) -> None:
        for uid, pod in news.pods.items():
            self._take_pod(uid, pod)
        for capture_uid, judged in news.captures.items():
            if judged is None:
                self._judged.pop(capture_uid, None)
            else:
                self._judged[capture_uid] = judged
            self._take_capture(capture_uid, judged, now)
        for capture_uid, pod_uid in news.reports:
            self._due_captures.add(capture_uid)
            if pod_uid in self._holders.get(capture_uid, ()):
                self._touch(pod_uid)
        for uid, at in news.again.items():
            self._alarm(max(at, 0.0), _AGAIN, uid)
        if news.surroundings:
            self._due_captures |= self._captures.keys()
            self._due_annotations = True

    def _take_pod(self, uid: str, pod: Pod | None) -> None:
        was_annotated = self._annotated.pop(uid, None) is not None
        if pod is None:
            self._pods.pop(uid, None)
            self._due_pods.pop(uid, None)
            self._backlog.pop(uid, None)
            self._file(uid, self._pod_plans.pop(uid, PodPlan()), PodPlan())
        else:
            self._pods[uid] = pod
            self._touch(uid)
            if pod.metadata.annotation(keys.CAPTURE) is not None:
                self._annotated[uid] = pod
        if was_annotated or uid in self._annotated:
            self._due_annotations = True

    def _take_capture(self, uid: str, judged: Judged | None, now: float) -> None:
        old = self._captures.pop(uid, None)
        self._due_annotations = True
        if judged is None:
            self._index.remove(uid)
            self._capture_plans.pop(uid, None)
            self._due_captures.discard(uid)
            self._touch_pods_of(uid)
            return
        self._captures[uid] = judged
        self._due_captures.add(uid)
        self._index.put(judged)
        if old is not None and _means_the_same(old, judged):
            return
        self._alarm(next_edge(judged, now), _EDGE, uid)
        self._touch_pods_of(uid)
        for pod_uid, pod in self._pods.items():
            if selects(judged.capture, pod.metadata):
                self._touch(pod_uid)

    def _touch(self, pod_uid: str) -> None:
        self._backlog.pop(pod_uid, None)
        self._due_pods[pod_uid] = None

    def _touch_pods_of(self, capture_uid: str) -> None:
        for pod_uid in chain(
            self._selected.get(capture_uid, ()), self._holders.get(capture_uid, ())
        ):
            self._touch(pod_uid)

    # The clock.

    def _alarm(self, at: float, kind: str, uid: str) -> None:
        if at < NEVER:
            heapq.heappush(self._alarms, (at, (kind, uid)))

    def _ring(self, now: float) -> None:
        while self._alarms and self._alarms[0][0] <= now:
            _, (kind, uid) = heapq.heappop(self._alarms)
            if uid in self._pods:
                self._touch(uid)
            elif kind in (_ANNOTATIONS, _AGAIN):
                self._due_annotations = True
            if uid in self._captures:
                self._due_captures.add(uid)
                if kind == _EDGE:
                    self._alarm(next_edge(self._captures[uid], now), _EDGE, uid)
                    self._touch_pods_of(uid)
                    self._due_annotations = True

    # Plans.

    def _count_captures(self, view: NamespaceView, now: float) -> None:
        """Mark those for which there is no place, and unmark those for which there is one again."""
        for judged in crowded(self._judged.values(), view.ceiling, now):
            if judged.beyond != self._captures[judged.uid].beyond:
                self._take_capture(judged.uid, judged, now)

    def _plan_pods(self, view: NamespaceView, now: float, batch: int) -> list[Action]:
        actions: list[Action] = []
        for _ in range(min(batch, self.waiting_pods)):
            due = self._due_pods or self._backlog
            uid = next(iter(due))
            del due[uid]
            pod = self._pods[uid]
            candidates = self._index.candidates(pod.metadata)
            plan = plan_pod(pod, self._captures, candidates, view, now)
            old = self._pod_plans.get(uid, PodPlan())
            self._pod_plans[uid] = plan
            self._file(uid, old, plan)
            if plan.wake_at != old.wake_at or old.wake_at <= now:
                self._alarm(plan.wake_at, _POD, uid)
            can_wait = due is self._backlog
            actions.extend(map(_as_backlog, plan.actions) if can_wait else plan.actions)
        return actions

    def _file(self, uid: str, old: PodPlan, new: PodPlan) -> None:
        """Let the captures know what became of a pod."""
        selected_by = new.selected_by if new.facts is not None else frozenset()
        for capture in old.selected_by - selected_by:
            _discard(self._selected, capture, uid)
        if new.facts is not None:
            for capture in selected_by:
                self._selected.setdefault(capture, {})[uid] = new.facts
        for capture in old.carries - new.carries:
            holders = self._holders[capture]
            holders.discard(uid)
            if not holders:
                del self._holders[capture]
        for capture in new.carries - old.carries:
            self._holders.setdefault(capture, set()).add(uid)
        touched = old.selected_by | selected_by | (old.carries ^ new.carries)
        self._due_captures.update(touched & self._captures.keys())

    def _plan_annotations(self, view: NamespaceView, now: float) -> tuple[Action, ...]:
        if not self._due_annotations:
            return ()
        self._due_annotations = False
        old = self._annotations
        new = plan_annotations(replace(view, pods=tuple(self._annotated.values())), now)
        self._annotations = new
        if (old.faults, old.kept) != (new.faults, new.kept):
            self._due_captures |= {
                uid for uid, judged in self._captures.items() if judged.capture.source is not None
            }
        self._alarm(new.wake_at, _ANNOTATIONS, "")
        return new.actions

    def _plan_captures(self, view: NamespaceView, now: float) -> Iterator[Action]:
        due, self._due_captures = self._due_captures & self._captures.keys(), set()
        for uid in due:
            written_at = view.memory.status_written_at.get(uid, -NEVER)
            if abs(now - written_at) < WRITE_EVERY_SECONDS and not self._may_expire(uid, now):
                # Whatever it would come to, it is not to be written yet.
                self._capture_plans.pop(uid, None)
                self._alarm(written_at + WRITE_EVERY_SECONDS, _STATUS, uid)
                continue
            plan = plan_capture(
                self._captures[uid],
                self._selected.get(uid, {}).values(),
                view,
                self._annotations,
                uid in self._holders,
                now,
            )
            self._capture_plans[uid] = plan
            self._alarm(plan.wake_at, _STATUS, uid)
            if plan.action is not None:
                yield plan.action

    def _may_expire(self, uid: str, now: float) -> bool:
        settings = self._captures[uid].settings
        return settings is not None and now >= settings.ends_at + settings.ttl_seconds


def _as_backlog(action: Action) -> Action:
    return replace(action, is_backlog=True) if isinstance(action, PatchOrders) else action


def _means_the_same(old: Judged, new: Judged) -> bool:
    """Whether nothing but the status and the version of a capture has changed."""
    return (
        (old.settings, old.faults, old.beyond, old.is_leaving)
        == (new.settings, new.faults, new.beyond, new.is_leaving)
        and old.capture.spec == new.capture.spec
        and old.capture.source == new.capture.source
        and old.capture.metadata.name == new.capture.metadata.name
    )


def _discard(of: dict[str, dict[str, PodFacts]], capture: str, pod: str) -> None:
    pods = of.get(capture)
    if pods is not None:
        pods.pop(pod, None)
        if not pods:
            del of[capture]

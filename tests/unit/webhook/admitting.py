"""A pod as the API server has it after our answer."""

import json
from typing import Any

from tests.unit.webhook.builders import (
    NAMESPACE,
    NOW,
    SIZES,
    TEMPLATE,
    KnownCluster,
    a_capture,
    a_review,
    apply,
    look,
    resolved,
)
from webhook.eligibility import decide
from webhook.facts import NamespaceFacts
from webhook.handlers import PodHandler
from webhook.review import read_request
from webhook.shape import Level

CAPTURE = resolved(a_capture(filter="udp port 53"))


def handler(level=Level.PRIVILEGED, *, captures=(), template=TEMPLATE):
    cluster = KnownCluster(running=tuple(captures))
    pods = PodHandler(
        cluster, lambda: template, SIZES, own_namespace="nightcap-system", clock=lambda: NOW
    )
    return pods.at(level)


def admit(pod, level=Level.PRIVILEGED, *, captures=()):
    """The pod as the API server has it after our answer, and the answer's outcome."""
    request = read_request(json.dumps(a_review(object=pod)).encode())
    outcome = handler(level, captures=captures)(request)
    return apply(pod, outcome.answer.patch), outcome


def decide_on(pod: dict[str, Any], level: Level) -> Any:
    facts = NamespaceFacts(NAMESPACE, enabled=True)
    return decide(look(pod), facts, level, own_namespace="nightcap-system")

"""One installation's certificates without a cluster: steps are done to values."""

from certs.bundle import EMPTY, Bundle, bundle_of, data_of
from certs.policy import (
    Observed,
    Policy,
    ServingSecret,
    Step,
    StepKind,
    bundle_text,
    next_step,
)
from certs.steps import secret_after

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY
NOW = 1_795_000_000.0

WEBHOOK = ServingSecret("nightcap-webhook-tls", frozenset({"nightcap-webhook", "localhost"}))
RETRIEVAL = ServingSecret(
    "nightcap-retrieval-tls", frozenset({"nightcap-collector", "localhost"}), collects=True
)
POLICY = Policy((WEBHOOK, RETRIEVAL), settle_seconds=120.0)
PLACES = ("ConfigMap", "MutatingWebhookConfiguration")


class World:
    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.ca: Bundle | None = None
        self.serving: dict[str, Bundle | None] = {s.name: None for s in policy.serving}
        self.places = dict.fromkeys(PLACES, "")

    def observed(self) -> Observed:
        return Observed(self.ca, dict(self.serving), dict(self.places))

    def next_step(self, now: float) -> Step:
        return next_step(self.observed(), self.policy, now)

    def do(self, step: Step, now: float) -> None:
        if step.where in self.places:
            self.places[step.where] = bundle_text(self.observed(), now)
            return
        old = (self.serving[step.where] if step.where else self.ca) or EMPTY
        new = secret_after(step, old, self.observed(), self.policy, now)
        new = bundle_of(data_of(new))  # through the Secret, as in the cluster
        if step.where:
            self.serving[step.where] = new
        else:
            self.ca = new

    def settle(self, now: float) -> list[Step]:
        """Everything that is to do now, done; the last one is KEEP."""
        steps: list[Step] = []
        while not steps or steps[-1].kind is not StepKind.KEEP:
            assert len(steps) < 40, f"does not settle: {steps[-3:]}"
            steps.append(self.next_step(now))
            if steps[-1].kind is not StepKind.KEEP:
                self.do(steps[-1], now)
        return steps

    def bundle(self, secret: ServingSecret) -> Bundle:
        bundle = self.serving[secret.name]
        assert bundle is not None
        return bundle

    def roots(self) -> Bundle:
        assert self.ca is not None
        return self.ca


def kinds(steps: list[Step]) -> list[str]:
    return [f"{step.kind} g{step.generation} {step.where}".strip() for step in steps]

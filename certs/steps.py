"""What a Secret holds after one step of the policy; makes keys, writes nothing."""

from dataclasses import replace

from certs.bundle import Bundle
from certs.issue import new_leaf, new_root
from certs.policy import Observed, Policy, Step, StepKind, bundle_text


def secret_after(step: Step, old: Bundle, observed: Observed, policy: Policy, now: float) -> Bundle:
    """What a Secret is to hold after a step; makes keys, changes nothing.

    Args:
        step: What to do.
        old: What the step's Secret holds now.
        observed: Everything, for the roots.
        policy: Lives and names.
        now: Epoch seconds.
    """
    n = step.generation
    match step.kind:
        case StepKind.NEW_ROOT:
            root = new_root(n, now, policy.root_seconds)
            return replace(old.with_pair(n, root), current=old.current or n)
        case StepKind.ISSUE_LEAF:
            if observed.ca is None:
                raise ValueError(f"no root to sign a leaf of {step.where} with")
            secret = next(secret for secret in policy.serving if secret.name == step.where)
            leaf = new_leaf(observed.ca.pairs[n], secret.names_of(n), now, policy.leaf_seconds)
            # A server never shows a leaf whose root is not in its own bundle.
            return replace(
                old.with_pair(n, leaf),
                current=old.current or n,
                ca_bundle=bundle_text(observed, now),
            )
        case StepKind.PUBLISH:
            return replace(old, ca_bundle=bundle_text(observed, now))
        case StepKind.MARK_PUBLISHED:
            return replace(old, published_at={**old.published_at, n: now})
        case StepKind.ACTIVATE:
            return replace(old, current=n)
        case StepKind.RETIRE:
            return old.without(n)
        case _:
            raise ValueError(f"{step.kind} changes no Secret")

"""The policy as tables with a fixed clock; keys are real, the cluster is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from certs.bundle import Bundle, bundle_of, data_of
from certs.issue import new_leaf, new_root
from certs.policy import StepKind, bundle_text, living_roots
from nightcap.contract.paths import collector_name
from tests.unit.certs.world import (
    DAY,
    NOW,
    POLICY,
    RETRIEVAL,
    WEBHOOK,
    YEAR,
    World,
    kinds,
)


@pytest.fixture
def world() -> World:
    made = World()
    made.settle(NOW)
    return made


def test_first_installation_ends_with_everything_in_place() -> None:
    world = World()
    assert kinds(world.settle(NOW)) == [
        "new root g1",
        "issue leaf g1 nightcap-webhook-tls",
        "issue leaf g1 nightcap-retrieval-tls",
        "publish g0 ConfigMap",
        "publish g0 MutatingWebhookConfiguration",
        "mark published g1",
        "keep g0",
    ]
    root = world.roots().pairs[1]
    assert world.roots().current == 1
    assert set(world.places.values()) == {root.certificate}
    for secret in (WEBHOOK, RETRIEVAL):
        bundle = world.bundle(secret)
        assert (bundle.current, bundle.ca_bundle) == (1, root.certificate)
        assert bundle.pairs[1].ca == root.certificate
    assert world.bundle(RETRIEVAL).pairs[1].facts.names == {
        *RETRIEVAL.names,
        collector_name(1),
    }


def _lose_webhook_secret(world: World) -> None:
    world.serving[WEBHOOK.name] = None


def _damage_leaf(world: World) -> None:
    data = data_of(world.bundle(WEBHOOK))
    world.serving[WEBHOOK.name] = bundle_of({**data, "g1.crt": "AAAA"})


def _take_key_of_another_leaf(world: World) -> None:
    data = data_of(world.bundle(WEBHOOK))
    other = data_of(world.bundle(RETRIEVAL))
    world.serving[WEBHOOK.name] = bundle_of({**data, "g1.key": other["g1.key"]})


def _sign_by_another_root(world: World) -> None:
    leaf = new_leaf(new_root(1, NOW), WEBHOOK.names, NOW)
    world.serving[WEBHOOK.name] = world.bundle(WEBHOOK).with_pair(1, leaf)


def _change_names(world: World) -> None:
    more = replace(WEBHOOK, names=WEBHOOK.names | {"captures.example.com"})
    world.policy = replace(POLICY, serving=(more, RETRIEVAL))


def _wipe_place(world: World) -> None:
    world.places["MutatingWebhookConfiguration"] = ""


def _edit_place(world: World) -> None:
    world.places["ConfigMap"] = "something else"


def _wipe_secret_bundle(world: World) -> None:
    world.serving[RETRIEVAL.name] = replace(world.bundle(RETRIEVAL), ca_bundle="")


def _forget_current(world: World) -> None:
    world.serving[RETRIEVAL.name] = replace(world.bundle(RETRIEVAL), current=0)


def _name_a_dead_current(world: World) -> None:
    world.serving[RETRIEVAL.name] = replace(world.bundle(RETRIEVAL), current=7)


@pytest.mark.parametrize(
    ("harm", "repair", "why"),
    [
        (_lose_webhook_secret, "issue leaf g1 nightcap-webhook-tls", "there is none"),
        (_damage_leaf, "issue leaf g1 nightcap-webhook-tls", "damaged"),
        (_take_key_of_another_leaf, "issue leaf g1 nightcap-webhook-tls", "damaged"),
        (_sign_by_another_root, "issue leaf g1 nightcap-webhook-tls", "another root"),
        (_change_names, "issue leaf g1 nightcap-webhook-tls", "other names"),
        (_wipe_place, "publish g0 MutatingWebhookConfiguration", "no bundle"),
        (_edit_place, "publish g0 ConfigMap", "differs"),
        (_wipe_secret_bundle, "publish g0 nightcap-retrieval-tls", "differs"),
        (_forget_current, "activate g1 nightcap-retrieval-tls", "none is"),
        (_name_a_dead_current, "activate g1 nightcap-retrieval-tls", "dead"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_harm_is_repaired_by_one_step_that_says_why(
    world: World, harm: Callable[[World], None], repair: str, why: str
) -> None:
    harm(world)
    steps = world.settle(NOW + 60)
    assert kinds(steps) == [repair, "keep g0"]
    assert why in steps[0].reason


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (59.9 * DAY, ["keep g0"]),
        (
            60.1 * DAY,
            [
                "issue leaf g1 nightcap-webhook-tls",
                "issue leaf g1 nightcap-retrieval-tls",
                "keep g0",
            ],
        ),
    ],
    ids=["before two thirds", "after two thirds"],
)
def test_leaf_is_renewed_at_two_thirds_of_its_life(
    world: World, at: float, expected: list[str]
) -> None:
    assert kinds(world.settle(NOW + at)) == expected


def test_keep_says_when_the_clock_makes_something_due(world: World) -> None:
    step = world.next_step(NOW + 1)
    assert step.kind is StepKind.KEEP
    assert step.again_at == pytest.approx(NOW + 60 * DAY, abs=2)
    assert world.next_step(step.again_at - 1).kind is StepKind.KEEP
    assert world.next_step(step.again_at).kind is StepKind.ISSUE_LEAF


def test_new_root_is_in_every_bundle_for_a_while_before_it_is_used(world: World) -> None:
    at = NOW + 6.7 * YEAR
    first = world.roots().pairs[1].certificate
    steps = kinds(world.settle(at))
    assert steps[0] == "new root g2"
    assert "issue leaf g2 nightcap-webhook-tls" in steps
    assert "issue leaf g2 nightcap-retrieval-tls" in steps
    assert not [step for step in steps if step.startswith("activate")]
    second = world.roots().pairs[2].certificate
    assert set(world.places.values()) == {second + first}
    for secret in (WEBHOOK, RETRIEVAL):
        assert world.bundle(secret).current == 1
        assert world.bundle(secret).ca_bundle == second + first
        assert set(world.bundle(secret).pairs) == {1, 2}
    assert world.next_step(at + 119).again_at == pytest.approx(at + 120)
    assert kinds(world.settle(at + 121)) == [
        "activate g2",
        "activate g2 nightcap-webhook-tls",
        "activate g2 nightcap-retrieval-tls",
        "keep g0",
    ]


def test_place_that_appears_during_a_rotation_gets_old_and_new(world: World) -> None:
    world.settle(NOW + 6.7 * YEAR)
    world.places["ValidatingWebhookConfiguration"] = ""
    world.settle(NOW + 6.7 * YEAR + 10)
    assert world.places["ValidatingWebhookConfiguration"].count("BEGIN CERTIFICATE") == 2


def test_place_that_cannot_be_written_holds_the_new_root_back(world: World) -> None:
    """Nobody may be shown a chain that a webhook configuration does not know yet."""
    at = NOW + 6.7 * YEAR
    while (step := world.next_step(at)).kind is not StepKind.PUBLISH:
        world.do(step, at)
    assert world.next_step(at + YEAR / 52).kind is not StepKind.ACTIVATE


def test_old_root_is_served_until_it_expires_and_then_gone_everywhere(world: World) -> None:
    for now in (NOW + 6.7 * YEAR, NOW + 6.7 * YEAR + 121):
        world.settle(now)
    now = NOW + 9.99 * YEAR
    world.settle(now)
    old = world.bundle(RETRIEVAL).pairs[1]
    assert now < old.facts.expires_at <= world.roots().pairs[1].facts.expires_at
    world.settle(NOW + 10.01 * YEAR)
    assert set(living_roots(world.observed(), NOW + 10.01 * YEAR)) == {2}
    for bundle in (world.roots(), world.bundle(WEBHOOK), world.bundle(RETRIEVAL)):
        assert set(bundle.pairs) == {2}
    assert set(world.places.values()) == {world.roots().pairs[2].certificate}


def test_lost_ca_makes_a_new_generation_and_serves_the_old_leaves(world: World) -> None:
    """Sidecars pin g1's root: another root under that number would lock them out for good."""
    world.ca = None
    steps = kinds(world.settle(NOW + DAY))
    assert steps[0] == "new root g2"
    assert world.bundle(RETRIEVAL).current == 1
    assert set(world.bundle(RETRIEVAL).pairs) == {1, 2}
    assert world.places["ConfigMap"].count("BEGIN CERTIFICATE") == 2
    world.settle(NOW + DAY + 121)
    assert world.bundle(RETRIEVAL).current == 2
    world.settle(NOW + 90.1 * DAY)
    assert set(world.bundle(RETRIEVAL).pairs) == {2}


def test_damaged_root_is_replaced_and_never_numbered_again(world: World) -> None:
    data = data_of(world.roots())
    world.ca = bundle_of({**data, "g1.key": "bm90IGEga2V5"})
    step = world.next_step(NOW + DAY)
    assert (step.kind, step.generation) == (StepKind.NEW_ROOT, 2)
    assert "g1" in step.reason


def test_after_years_without_a_controller_all_is_made_anew(world: World) -> None:
    now = NOW + 30 * YEAR
    steps = world.settle(now)
    assert steps[0].reason == "every root has expired"
    for secret in (WEBHOOK, RETRIEVAL):
        bundle = world.bundle(secret)
        assert set(bundle.pairs) == {2}
        assert bundle.current == 2
        assert now < bundle.pairs[2].facts.expires_at


def test_forty_years_leave_nobody_out() -> None:
    """Every day for 40 years: what is pinned is served, what is served is trusted."""
    policy = replace(POLICY, leaf_seconds=YEAR, settle_seconds=2 * DAY)
    world = World(policy)
    world.settle(NOW)
    pinned: dict[int, float] = {}  # generation → when a sidecar last pinned it
    for day in range(0, 40 * 365, 7):
        now = NOW + day * DAY
        trusted_before = dict(world.places)
        world.settle(now)
        bundle = world.bundle(RETRIEVAL)
        pinned[bundle.current] = now
        served = world.bundle(WEBHOOK).pairs[world.bundle(WEBHOOK).current]
        # A replica or an API server that is a week late still trusts what is shown.
        if day:
            assert served.ca in trusted_before["MutatingWebhookConfiguration"]
        assert now < served.facts.expires_at - 0.2 * YEAR
        for generation, last in pinned.items():
            if now < last + 3 * YEAR:
                leaf = bundle.pairs[generation]
                assert now < leaf.facts.expires_at
                assert collector_name(generation) in leaf.facts.names
    assert len(pinned) >= 6


def test_bundle_text_is_newest_first_and_each_root_once(world: World) -> None:
    world.settle(NOW + 6.7 * YEAR)
    text = bundle_text(world.observed(), NOW + 6.7 * YEAR)
    roots = world.roots().pairs
    assert text == roots[2].certificate + roots[1].certificate


def test_secret_with_unknown_keys_is_no_reason_to_do_anything(world: World) -> None:
    data = data_of(world.bundle(WEBHOOK))
    world.serving[WEBHOOK.name] = bundle_of({**data, "tls.crt": "AAAA", "g01.crt": "AAAA"})
    assert kinds(world.settle(NOW)) == ["keep g0"]


def test_lives_of_seconds_work_like_lives_of_years() -> None:
    world = World(replace(POLICY, root_seconds=30, leaf_seconds=6, settle_seconds=2))
    seen: set[int] = set()
    for second in range(120):
        world.settle(NOW + second)
        bundle: Bundle = world.bundle(WEBHOOK)
        assert NOW + second < bundle.pairs[bundle.current].facts.expires_at
        seen.add(bundle.current)
    assert len(seen) >= 5

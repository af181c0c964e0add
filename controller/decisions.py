"""Decides about namespaces, each by its ledger."""

from controller.ledger import Ledger
from controller.reconcile import Plan
from controller.world import World


class Decisions:
    """The ledgers of all namespaces; for the loop's thread alone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledgers: dict[str, Ledger] = {}

    def decide(self, namespace: str, now: float) -> Plan:
        """What has to be done in a namespace, for what is news and what the clock touches.

        Args:
            namespace: Its name.
            now: Seconds since the epoch.
        """
        news, view = self._world.take(namespace)
        ledger = self._ledgers.setdefault(namespace, Ledger())
        try:
            plan = ledger.update(news, view, now)
        except Exception:
            # It may have stopped anywhere: the next look is at everything.
            del self._ledgers[namespace]
            self._world.renew(namespace)
            raise
        if ledger.is_empty and view.namespace is None:
            del self._ledgers[namespace]
        return plan

    @property
    def waiting_pods(self) -> int:
        """Pods that have news and were left for the next pass."""
        return sum(ledger.waiting_pods for ledger in tuple(self._ledgers.values()))

"""`make demo`: exits 0 when every promise was kept."""

import sys

from demo import stage
from demo.kubectl import KubectlError, NotInTimeError
from demo.narrator import Narrator
from demo.walkthrough import WalkThrough


def main() -> int:
    """Prepare the stage, walk through, say how it went."""
    tell = Narrator()
    tell.step(
        "A real Kubernetes, and Nightcap in it",
        "Two nodes with kubelet and containerd; what is not built yet is built now.",
    )
    try:
        prepared = stage.prepare(tell.say)
        kept = WalkThrough(prepared, tell).run()
    except (stage.NoStageError, KubectlError, NotInTimeError) as error:
        print(f"\nThe walk-through stopped: {error}", file=sys.stderr)
        return 1
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""`python -m examples.demo`: the whole story, unattended, against a throw-away stack of real servers.

Each step prints what the real system answered; exit code 0 only if each was as expected.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from . import chapters
from .fighting import fight_ending
from .labelling import label_pictures
from .stack import DemoStack
from .story import Story, Unexpected


def tell(story: Story, stack: DemoStack) -> None:
    """The story from the first start to the last stop."""
    story.chapter("Starting")
    began = time.monotonic()
    story.step("OpenBao, two PostgreSQL, an object store, web and worker from nothing", stack.up(), True)
    people = {name: stack.user(name) for name in ("ada", "bo", "olga", "omar", "ines")}
    story.ran(
        f"the portal answers ({time.monotonic() - began:.1f} s)",
        people["ada"].run("status"),
        4,
        "ready\tyes",
        shows="ready",
    )
    chapters.sign_in_everybody(story, people)
    laptop = stack.user("olga", "-laptop")
    chapters.approve_request(story, people["olga"], laptop, chapters.ask_for_access(story, people))
    chapters.read_the_slice(story, people)
    label_pictures(story, people["ada"], laptop)
    chapters.end_credentials(story, people, stack)
    fight_ending(story, people["ada"], laptop, chapters.VISITS)
    chapters.change_rules_and_suspend(story, people, stack)
    story.chapter("Stopping")
    stopped = stack.down()
    story.step("everything stopped", f"exit {stopped}", stopped == 0)


def main() -> int:
    """Tell the story on a throw-away stack; 0 if everything was as expected."""
    story = Story()
    with tempfile.TemporaryDirectory(prefix="guestkey-demo-") as folder:
        # PostgreSQL may run as another account, which must reach its own folder in here.
        Path(folder).chmod(0o711)
        stack = DemoStack(Path(folder) / "state")
        try:
            tell(story, stack)
        except Unexpected as error:
            print(f"\ndemo: not as expected after step {story.steps}: {error}")
            return 1
        finally:
            stack.down()
    print(f"\ndemo: {story.steps} steps, all as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The one form in which a user's mistake or an unfit environment is reported."""

EXIT_HELD = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class UserError(Exception):
    """Something the person at the keyboard can change: one line, no stack trace, exit code 2.

    `what` names the thing that failed, `expected` and `seen` the two values that disagree,
    `hint` the next thing to try.
    """

    def __init__(self, what: str, *, expected: str, seen: str, hint: str) -> None:
        self.what = what
        self.expected = expected
        self.seen = seen
        self.hint = hint
        super().__init__(f"{what}: expected {expected}, seen {seen}; hint: {hint}")

    def __str__(self) -> str:
        """Fold the message to one line: the parts may quote programs that print many."""
        return " ".join(super().__str__().split())

"""What goes wrong when people sign in. Only the edge knows how it is answered."""

from __future__ import annotations


class SignInProblem(Exception):
    """Base: the message is a sentence for whoever tried to sign in."""


class TokenRefused(SignInProblem):
    """A token is not one that counts here; the message says what is wrong with it."""


class ProviderAway(SignInProblem):
    """The provider cannot be reached, or answers what it must not."""


class SignInLost(SignInProblem):
    """The provider's answer is to no sign-in that this browser has under way: too late, used already, somebody else's."""


class SignInDenied(SignInProblem):
    """The provider did not sign the person in, and says so."""


class NoRole(SignInProblem):
    """None of the person's groups has a role here."""

    def __init__(self, name: str, groups: tuple[str, ...]) -> None:
        told = f"the provider tells of {', '.join(groups[:_MOST_TOLD])}" if groups else "the provider tells of no group"
        more = f" and {len(groups) - _MOST_TOLD} more" if len(groups) > _MOST_TOLD else ""
        super().__init__(f"{name} is known, but no group of theirs has a role here ({told}{more}); ask who runs this service")


class TenantUnclear(SignInProblem):
    """The person has roles for several tenants, and did not say for which they ask, or asks for another."""


_MOST_TOLD = 10

"""Which claims of a job have to bind it."""

from shoal.sandbox import Claim, Sandbox, SandboxLevel


def binding_claims(wanted: Sandbox, level: SandboxLevel) -> frozenset[Claim]:
    """Return the claims that bind a job where its node can make them.

    At level `none`, which is only there because an operator said so, those that the job names; else all.
    """
    return wanted.enforce if level is SandboxLevel.NONE else frozenset(Claim)

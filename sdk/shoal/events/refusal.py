"""A refusal that is final."""


class SubscriptionRefusedError(Exception):
    """The broker does not let this consumer listen to a topic: another try says the same."""

"""Membership: SWIM with Lifeguard on memberlist's wire."""

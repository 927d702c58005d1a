"""The authority of a cluster: certificates, join tokens and lane tickets."""

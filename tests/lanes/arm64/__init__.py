"""The image of the agent for aarch64."""

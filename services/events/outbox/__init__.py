"""The outbox: which events leave when (`machine`), and the link on which they leave (`shell`)."""

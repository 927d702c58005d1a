"""What a sandbox keeps a job from, with real processes."""

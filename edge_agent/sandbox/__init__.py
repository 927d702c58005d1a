"""The door of a job: what is done to its processes before they begin, so that it sees and takes what it may."""

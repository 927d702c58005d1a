"""What a release consists of, and what it takes to run one."""

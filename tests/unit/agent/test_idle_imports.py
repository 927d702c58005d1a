"""What an agent does not load before it needs it."""

import subprocess
import sys


def test_an_agent_starts_without_what_fetches_and_serves_over_http() -> None:
    code = (
        "import sys, edge_agent.main, edge_agent.agent, edge_agent.agent_process\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:]))"
    )
    unwanted = ("aiohttp", "attr", "yarl", "boto3", "botocore", "rich", "asyncpg")
    ran = subprocess.run(
        [sys.executable, "-c", code, *unwanted, "grpc"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stdout.split() == ["grpc"]

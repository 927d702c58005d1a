"""What a controller says of everything that it remembers, for people who compare it with what it said before."""

from typing import Any

from shoal.client import Client


async def described(client: Client) -> dict[str, Any]:
    """What a client says of all pipelines and nodes, without what changes as time passes."""
    pipelines: dict[str, Any] = {}
    async for one in client.list():
        view = await client.get(one.name)
        page = await client.events(view.name, page_size=1000)
        pipelines[view.name] = {
            "state": view.state.name,
            "creator": view.creator,
            "jobs": {
                job.id: {
                    "state": job.state.name,
                    "attempts": [[a.node, a.state.name, str(a.reason.code)] for a in job.attempts],
                    "artifacts": sorted(
                        [a.path, a.size_bytes, a.sha256]
                        for a in (job.manifest.artifacts if job.manifest else ())
                    ),
                }
                for job in view.jobs
            },
            "events": [event.type for event in page.events],
        }
    nodes = {node.name: {"drained": node.drained} for node in await client.nodes()}
    return {"pipelines": pipelines, "nodes": nodes}

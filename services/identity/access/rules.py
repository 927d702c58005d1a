"""The table of all methods that an API server serves: what each call takes.

Rule: a method that is not here is refused. tests/unit/access/test_rules.py compares the table with the
contracts, in both directions.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.identity.access.rule import Rule, Verb

_NAMESPACE: Final = ("namespace",)
_KNOW: Final = Rule(Verb.KNOW)
_READ: Final = Rule(Verb.READ, namespace=_NAMESPACE)
_READ_CLUSTER: Final = Rule(Verb.READ)
_STEER: Final = Rule(Verb.SUBMIT, namespace=_NAMESPACE, changes=True, recorded=True)
_STORE: Final = Rule(
    Verb.SUBMIT, namespace=_NAMESPACE, changes=True, recorded=True, spec=("source",)
)
_LOOK: Final = Rule(Verb.OPERATE)
_OPERATE: Final = Rule(Verb.OPERATE, changes=True)
_OPERATE_NODE: Final = Rule(Verb.OPERATE, changes=True, recorded=True)

_SERVICES: Final[Mapping[str, Mapping[str, Rule]]] = {
    "shoal.v1.PipelinesService": {
        "SubmitPipeline": Rule(
            Verb.SUBMIT, namespace=_NAMESPACE, changes=True, recorded=True, spec=("spec",)
        ),
        "SubmitPipelines": Rule(
            Verb.SUBMIT,
            namespace=("requests", "namespace"),
            each=True,
            changes=True,
            recorded=True,
            spec=("requests", "spec"),
        ),
        "GetPipeline": _READ,
        "ListPipelines": _READ,
        "CountPipelines": _READ,
        "ListJobs": _READ,
        "CancelPipeline": _STEER,
        "FinishPipeline": _STEER,
        "RevivePipeline": _STEER,
        "DiscardDeadLetter": _STEER,
        "ScaleJob": _STEER,
        "WatchPipelines": _READ,
        "ReadLogs": _READ,
        "ExplainJob": _READ,
        "ListEvents": _READ,
        "WatchEvents": _READ,
        # A bundle belongs to no namespace: a caller that knows its digest, 256 bits that
        # stand in specifications alone, may run it. A submitter asks what is missing before it uploads.
        "FindMissingBundles": Rule(Verb.SUBMIT),
        "UploadBundle": Rule(Verb.SUBMIT, bundle=("data",)),
        # Pieces do: a caller that hears that one is known hears that a client of that namespace has such a file.
        "FindMissingPieces": Rule(Verb.SUBMIT, namespace=_NAMESPACE),
        "UploadPieces": Rule(Verb.SUBMIT, namespace=_NAMESPACE, bundle=("data",)),
        "ListArtifacts": _READ,
        "GetArtifactUrl": _READ,  # the service holds the key to the namespace
    },
    "shoal.v1.NodesService": {
        "ListNodes": _READ_CLUSTER,
        "GetNode": _READ_CLUSTER,
        "DrainNode": Rule(
            Verb.DRAIN, node=("name",), node_sets=("drained",), changes=True, recorded=True
        ),
        "AdoptNode": _OPERATE_NODE,
        "ForgetNode": _OPERATE_NODE,
        "WatchNodes": _READ_CLUSTER,
        "ListMembers": _READ_CLUSTER,
        "WatchMembers": _READ_CLUSTER,
    },
    "shoal.v1.KeysService": {
        "ListKeys": _LOOK,
        "InstallKey": _OPERATE,
        "UseKey": _OPERATE,
        "RemoveKey": _OPERATE,
        "RotateKey": _OPERATE,
    },
    "shoal.v1.HistoryService": {"GetHistory": _READ_CLUSTER},
    "shoal.v1.OverviewService": {"WatchOverview": _READ},
    "shoal.v1.ArchiveService": {"CollectGarbage": _OPERATE},
    "shoal.v1.LanesService": {
        # A caller that pulls a lane is its consumer: what it acknowledges is let go.
        "PullLane": Rule(Verb.SUBMIT, namespace=("open", "namespace")),
        "FeedLane": Rule(Verb.SUBMIT, namespace=("open", "namespace")),
    },
    "shoal.v1.RecordsService": {"TapPort": _READ},
    "shoal.v1.SessionService": {
        # A board that gave the name of another one in gossip would get what gossip says of that.
        "Connect": Rule(
            Verb.SPEAK_AS_NODE,
            node=("messages", "hello", "node"),
            node_too=("messages", "hello", "member_name"),
        )
    },
    "shoal.v1.IdentityService": {
        "GetCaller": _KNOW,
        "CreateToken": _OPERATE,
        "ListTokens": _LOOK,
        "RevokeToken": _OPERATE,
        "ListCertificates": _LOOK,
        "RevokeIdentity": _OPERATE,
        "RenewCertificate": _KNOW,
        "ListAuthorities": _LOOK,
        "AddAuthority": _OPERATE,
        "UseAuthority": _OPERATE,
        "RemoveAuthority": _OPERATE,
    },
    "shoal.v1.SecretsService": {
        "SetSecret": _STEER,
        "ListSecrets": _READ,
        "RemoveSecret": _STEER,
        "RotateSecretKey": _OPERATE,
    },
    "shoal.v1.SpecsService": {
        # It says which secrets and bundles are there, and takes a second of the controller's time.
        "ValidateSpec": Rule(Verb.SUBMIT, namespace=_NAMESPACE, spec=("source",)),
        "SubmitSource": _STORE,
    },
    "shoal.v1.StoredPipelinesService": {
        "CreateStoredPipeline": _STORE,
        "UpdateStoredPipeline": _STORE,
        "GetStoredPipeline": _READ,
        "ListStoredPipelines": _READ,
        "ListStoredVersions": _READ,
        "DeleteStoredPipeline": _STEER,
        "SubmitStoredPipeline": _STEER,
    },
    "grpc.health.v1.Health": {"Check": _KNOW, "List": _KNOW, "Watch": _KNOW},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _KNOW},
}

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        f"/{service}/{method}": rule
        for service, methods in _SERVICES.items()
        for method, rule in methods.items()
    }
)
"""By the path of the method: `/shoal.v1.NodesService/ListNodes`."""

"""People join with a token and are believed: the real command, a real controller, real HTTPS and mutual TLS."""

import asyncio
import datetime as dt
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.identity.authority import make_authority
from services.identity.cluster_identity import ClusterIdentity
from shoal.cli.renewal import renew_if_due
from shoal.credentials import make_credentials, read_credentials, write_credentials
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request
from tests.kit.running_controller import running_controller

SECONDS = 60


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A controller and the home of a person that commands of the test run in."""

    grpc: str
    newcomers: str
    state: Path
    home: Path

    async def shoal(self, *words: str, stdin: str = "", **environ: str) -> Said:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SHOAL_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shoal.cli", *words),
            env={
                **kept,
                "XDG_STATE_HOME": str(self.home),
                "SHOAL_CONTROLLER": self.grpc,
                **environ,
            },
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), SECONDS)
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def operator(self, *words: str, stdin: str = "", **environ: str) -> Said:
        """Run a command as the administrator of the controller's machine."""
        folder = str(self.state / "identity" / "operator")
        return await self.shoal(*words, stdin=stdin, SHOAL_IDENTITY=folder, **environ)

    async def login(self, word: str, *words: str) -> Said:
        newcomers = ("--newcomers", self.newcomers)
        return await self.shoal("login", *newcomers, "--token-file", "-", *words, stdin=word)


@asynccontextmanager
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    state = tmp_path / "controller"
    settings = {"insecure": False, "newcomers": "127.0.0.1:0"}
    async with running_controller(state, **settings) as addresses:
        yield Place(addresses.grpc, addresses.newcomers, state, tmp_path / "home")


async def test_a_person_logs_in_with_a_token_and_is_believed_until_revoked(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        refused = await here.shoal("nodes")
        assert refused.status == 1
        assert "shoal login" in refused.err

        made = await here.operator("token", "create", "--role", "submitter", "--name", "ann")
        assert made.status == 0, made.err
        (word,) = made.out.split()
        assert f"shoal login --controller {here.grpc} --token-file" in made.err
        assert word not in made.err

        joined = await here.login(word, "--name", "ann")
        assert "you are submitter/ann in cluster" in joined.out
        assert word not in joined.out + joined.err
        said = await here.shoal("whoami")
        assert "you are submitter/ann" in said.out
        assert "you are submitter/ann" in (await here.shoal("status")).err
        assert json.loads((await here.shoal("whoami", "--json")).out)["identity"]["name"] == "ann"

        again = await here.login(word, "--name", "ann")
        assert again.status == 1
        assert word.rsplit(".", 1)[-1] not in again.err

        listed = await here.operator("identities", "list", "--role", "submitter")
        assert "submitter/ann" in listed.out
        revoked = await here.operator("identities", "revoke", "submitter/ann")
        assert "1 certificate revoked" in revoked.out
        after = await here.shoal("status")
        assert after.status == 1
        assert "revoked" in after.err

        assert "is forgotten" in (await here.shoal("logout")).out
        assert "are not logged in" in (await here.shoal("logout")).out


async def test_tokens_are_listed_without_their_secret_and_end(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        words = ("--role", "viewer", "--namespace", "lab", "--uses", "3", "--ttl", "10m", "--json")
        made = json.loads((await here.operator("token", "create", *words)).out)
        listed = await here.operator("token", "list")
        assert made["id"] in listed.out
        assert made["token"] not in listed.out
        joined = await here.login(made["token"], "--name", "bob")
        assert "you are viewer/lab/bob" in joined.out
        assert f"token {made['id']}" in (await here.operator("token", "revoke", made["id"])).out
        assert made["id"] not in (await here.operator("token", "list")).out
        assert (await here.login(made["token"], "--name", "eve")).status == 1
        bound = await here.operator("token", "create", "--role", "node", "--namespace", "lab")
        assert bound.status == 2
        assert "not bound to a namespace" in bound.err


async def test_a_token_of_a_board_is_not_used_up_by_a_person(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        made = await here.operator("token", "create", "--role", "node", "--name", "cam-1")
        assert f"shoal agent --name cam-1 --controller {here.grpc}" in made.err
        refused = await here.login(made.out, "--name", "cam-1")
        assert refused.status == 1
        listed = json.loads((await here.operator("token", "list", "--json")).out)
        assert listed["uses_left"] == 1


async def test_another_authority_takes_over_by_commands(tmp_path: Path) -> None:
    own = make_authority("own", now=dt.datetime.now(dt.UTC))
    pem = tmp_path / "own.pem"
    pem.write_bytes(own.certificate + own.key)
    async with place(tmp_path) as here:
        first = json.loads((await here.operator("authority", "list", "--json")).out)
        assert first["signs"] is True
        added = await here.operator("authority", "add", "--file", str(pem))
        assert own.fingerprint[:16] in added.out
        used = await here.operator("authority", "use", own.fingerprint[:12])
        assert used.status == 0, used.err
        listed = (await here.operator("authority", "list", "--json")).out.splitlines()
        assert [json.loads(line)["signs"] for line in listed] == [True, False]
        assert json.loads(listed[0])["fingerprint"] == own.fingerprint
        kept = await here.operator("authority", "remove", first["fingerprint"][:12])
        assert kept.status == 0, kept.err
        assert (await here.operator("nodes")).status == 0
        nothing = await here.operator("authority", "add", "--file", __file__)
        assert "0 keys and 0 certificates" in nothing.err


async def test_a_certificate_is_renewed_by_the_command_that_notices(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        folder = here.home / "folder"
        made = await here.operator("token", "create", "--role", "viewer")
        await here.login(made.out, "--name", "ann", "--identity", str(folder))
        before = read_credentials(folder)
        assert before is not None
        now = dt.datetime.now(dt.UTC)
        assert not await renew_if_due(folder, here.grpc, now)
        assert await renew_if_due(folder, here.grpc, now + dt.timedelta(days=250))
        after = read_credentials(folder)
        assert after is not None
        assert after.identity == before.identity
        assert after.key != before.key
        said = await here.shoal("whoami", SHOAL_IDENTITY=str(folder))
        assert "you are viewer/ann" in said.out


async def test_a_person_hears_of_another_authority_before_it_signs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        folder = here.home / "folder"
        made = await here.operator("token", "create", "--role", "viewer")
        await here.login(made.out, "--name", "ann", "--identity", str(folder))
        assert (await here.operator("authority", "add")).status == 0
        now = dt.datetime.now(dt.UTC)
        assert not await renew_if_due(folder, here.grpc, now)
        assert await renew_if_due(folder, here.grpc, now + dt.timedelta(hours=2))
        believed = read_credentials(folder)
        assert believed is not None
        assert believed.authorities.count(b"BEGIN CERTIFICATE") == 2


async def test_an_identity_that_cannot_be_used_is_told_and_a_login_teaches(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        nowhere = await here.shoal("status", "--identity", str(tmp_path / "no"))
        assert "there is no identity in" in nowhere.err
        loose = tmp_path / "loose"
        operator = read_credentials(here.state / "identity" / "operator")
        assert operator is not None
        write_credentials(loose, operator)
        (loose / "identity.pem").chmod(0o644)
        assert "chmod 600" in (await here.shoal("status", "--identity", str(loose))).err
        assert "a token is needed" in (await here.shoal("login")).err
        assert "is no join token" in (await here.login("x")).err
        missing = await here.shoal("login", "--token-file", str(tmp_path / "no.token"))
        assert "No such file" in missing.err


async def test_a_controller_with_insecure_says_so_out_loud(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "controller") as addresses:
        here = Place(
            addresses.grpc, addresses.newcomers, tmp_path / "controller", tmp_path / "home"
        )
        assert "INSECURE" in (await here.shoal("status")).err
        assert "INSECURE" in (await here.shoal("nodes")).err
        cluster = ClusterIdentity(tmp_path / "x", "c1", "main", lambda: dt.datetime.now(dt.UTC))
        key, ann = new_key(), Identity("c1", Role.OPERATOR, "ann")
        certificate = cluster.issue(signing_request(key, "ann"), ann)
        write_credentials(tmp_path / "ann", make_credentials(key, certificate, cluster.bundle))
        refused = await here.shoal("status", "--identity", str(tmp_path / "ann"))
        assert "started with --insecure" in refused.err

"""Environments over time: built again without a network, removed when old, and never used when damaged."""

import asyncio
import hashlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.environments.installer import InstallError
from edge_agent.environments.interpreter import InterpreterMissingError, Interpreters
from edge_agent.environments.recipe import Recipe
from shoal.spec import Environment, PipStep, UrlStep
from tests.kit.bundle_archive import source_of, wheel_of
from tests.kit.environment_workshop import OWN, PYTHON, UV, open_workshop, says
from tests.kit.package_index import PackageIndex
from tests.kit.until import until

PRINTS = "import shoalpart; print(shoalpart.version)"


def part(version: str, size: int = 0) -> tuple[str, bytes]:
    """A wheel of `shoalpart` with about so many bytes."""
    return wheel_of("shoalpart", version, f"version = {version!r}\n#{'x' * size}\n")


def source_archive() -> tuple[str, bytes]:
    """A source archive of the package `mine`, which has to be built."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in source_of("mine-1.0", "VALUE = 'built'\n").items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        info = b"Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n"
        member = tarfile.TarInfo("mine-1.0/PKG-INFO")
        member.size = len(info)
        tar.addfile(member, io.BytesIO(info))
    return "mine-1.0.tar.gz", out.getvalue()


async def test_e5_an_environment_is_built_again_without_a_network(tmp_path: Path) -> None:
    async with (
        PackageIndex() as index,
        open_workshop(tmp_path, UV_DEFAULT_INDEX=index.url, UV_HTTP_RETRIES="0") as shop,
    ):
        for file, data in (part("1.0"), source_archive()):
            index.add(file, data)
        hashed, wheel = wheel_of("hashed", "1.0", "")
        index.add(hashed, wheel)
        steps = (
            PipStep(("shoalpart",)),
            PipStep(("mine",)),
            UrlStep(index.address(hashed), hashlib.sha256(wheel).hexdigest()),
        )
        cache = shop.cache()
        first = await shop.get(cache, *steps)
        index.add(*part("2.0"))
        await index.take_away()
        shop.forget()
        shop.lose(first)
        shop.progress.clear()
        again = shop.cache()
        await again.open()
        second = await shop.get(again, *steps)
        assert second != first
        assert says(second, f"{PRINTS}; import mine, hashed; print(mine.VALUE)") == "1.0\nbuilt"
        assert "mine==1.0, shoalpart==1.0" in shop.progress[-1]
        assert "without a network" in shop.progress[-1]
        # Another recipe with the same packages.
        other = await shop.get(again, PipStep(("mine", "shoalpart<3")))
        assert says(other, PRINTS) == "1.0"
        # What is not here is not here, and the first trouble is named first.
        with pytest.raises(
            InstallError, match=r"(?s)Connection refused.*kept on this node.*absent"
        ):
            await shop.get(again, PipStep(("absent",)))


async def test_e5_a_refusal_of_the_index_is_no_lack_of_a_network(tmp_path: Path) -> None:
    async with PackageIndex() as index, open_workshop(tmp_path, UV_DEFAULT_INDEX=index.url) as shop:
        index.add(*part("1.0"))
        cache = shop.cache()
        await shop.get(cache, PipStep(("shoalpart",)))
        with pytest.raises(InstallError) as raised:
            await shop.get(cache, PipStep(("shoalpart==2.0",)))
        assert "kept on this node" not in str(raised.value)


async def test_e5_pip_of_an_old_interpreter_builds_without_a_network_too(tmp_path: Path) -> None:
    async with (
        PackageIndex() as index,
        open_workshop(tmp_path, PIP_INDEX_URL=index.url, PIP_RETRIES="1") as shop,
    ):
        index.add(*part("1.0"))
        interpreter = replace(await shop.interpreters.find("", shop.own_room), version=(3, 6, 9))
        for number in range(2):
            recipe = Recipe(Environment(steps=(PipStep(("shoalpart",)),)), "key", shop.work)
            place = shop.folder / f"old-{number}"
            await shop.installer.build(
                recipe, interpreter, place, shop.progress.append, shop.own_room
            )
            assert says(place, PRINTS) == "1.0"
            await index.take_away()
        assert "without a network" in shop.progress[-1]


async def test_the_oldest_unused_go_and_what_is_used_stays(tmp_path: Path) -> None:
    async with open_workshop(tmp_path, bytes_max=1_000_000) as shop:
        cache = shop.cache()
        built: dict[str, Path] = {}
        for number, version in enumerate(("1.0", "2.0", "3.0")):
            file, data = part(version, 300_000)
            (shop.work / file).write_bytes(data)
            built[version] = await shop.get(cache, PipStep((f"./{file}",)), attempt=f"a{number}")
            os.utime(built[version] / ".complete", (number, number))
        shop.forget("a1")
        file, data = part("4.0", 300_000)
        (shop.work / file).write_bytes(data)
        # An agent that has started again knows what is used, too.
        again = shop.cache()
        await again.open()
        await shop.get(again, PipStep((f"./{file}",)), attempt="a3")
        assert [version for version, place in built.items() if place.exists()] == ["1.0", "3.0"]


async def test_nothing_goes_while_an_attempt_of_an_older_agent_may_use_it(tmp_path: Path) -> None:
    async with open_workshop(tmp_path, bytes_max=500_000) as shop:
        steps: list[PipStep] = []
        for version in ("1.0", "2.0", "3.0"):
            file, data = part(version, 300_000)
            (shop.work / file).write_bytes(data)
            steps.append(PipStep((f"./{file}",)))
        first = await shop.get(shop.cache(), steps[0], attempt="old")
        (shop.attempts / "old" / "environment").unlink()
        again = shop.cache()
        await again.open()
        await shop.get(again, steps[1])
        assert first.exists()
        shop.forget("old")
        await shop.get(again, steps[2])
        assert not first.exists()


async def test_kept_packages_count_and_begin_anew(tmp_path: Path) -> None:
    async with (
        PackageIndex() as index,
        open_workshop(tmp_path, bytes_max=900_000, UV_DEFAULT_INDEX=index.url) as shop,
    ):
        index.add(*part("1.0", 500_000))
        await shop.get(shop.cache(), PipStep(("shoalpart",)))
        assert await shop.packages.size_bytes() == 0


@pytest.mark.parametrize("harm", ["changed", "lost", "added", "cut"])
async def test_an_environment_that_a_job_has_changed_is_built_anew(
    tmp_path: Path, harm: str
) -> None:
    async with open_workshop(tmp_path) as shop:
        cache = shop.cache()
        steps = (PipStep((f"./{shop.wheel('shoalpart', '1.0')}",)),)
        first = await shop.get(cache, *steps)
        (module,) = first.glob("lib/*/site-packages/shoalpart.py")
        assert says(first, PRINTS) == "1.0"
        assert await shop.get(cache, *steps) == first, (
            "what Python keeps beside its files is no change"
        )
        match harm:
            case "changed":
                module.write_text("version = 'bad'\n")
            case "lost":
                module.unlink()
            case "added":
                module.with_name("other.py").write_text("")
            case _:
                (first / "bin" / "python").unlink()
        second = await shop.get(cache, *steps, attempt="second")
        assert second != first
        assert says(second, PRINTS) == "1.0"
        assert any("damaged" in text for text in shop.progress)
        assert first.exists(), "an attempt uses it"
        shop.forget()
        await shop.get(cache, PipStep((f"./{shop.wheel('other', '1.0')}",)))
        assert not first.exists()


async def test_content_that_has_changed_unseen_is_found_after_the_first_use(tmp_path: Path) -> None:
    async with open_workshop(tmp_path) as shop:
        steps = (PipStep((f"./{shop.wheel('shoalpart', '1.0')}",)),)
        first = await shop.get(shop.cache(), *steps)
        (module,) = first.glob("lib/*/site-packages/shoalpart.py")
        before = module.stat()
        module.write_bytes(module.read_bytes().replace(b"1.0", b"6.6"))
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
        again = shop.cache()
        await again.open()
        reading = asyncio.create_task(again.run())
        assert await shop.get(again, *steps) == first
        await until(lambda: not (first / ".complete").exists(), 30, "the change is found")
        second = await shop.get(again, *steps)
        assert says(second, PRINTS) == "1.0"
        reading.cancel()


async def test_an_environment_of_an_agent_of_before_is_taken_over(tmp_path: Path) -> None:
    async with open_workshop(tmp_path) as shop:
        steps = (PipStep((f"./{shop.wheel('shoalpart', '1.0')}",)),)
        first = await shop.get(shop.cache(), *steps)
        (first / ".files").unlink()
        (first / ".complete").write_text('{"key": "it"}')
        again = shop.cache()
        await again.open()
        assert await shop.get(again, *steps) == first
        assert "stamp" in (first / ".complete").read_text()


async def test_the_pythons_of_a_board_are_found_or_named(tmp_path: Path) -> None:
    async with open_workshop(tmp_path) as shop:
        found = await shop.interpreters.find("system", shop.own_room)
        assert str(found.path) == "/usr/bin/python3"
        version = ".".join(map(str, found.version))
        with pytest.raises(
            InterpreterMissingError, match=rf"Python 3\.2 .*{version} \(/usr/bin/python3\."
        ):
            await shop.interpreters.find("3.2", shop.own_room)
        none = Interpreters(UV, PYTHON, OWN, system=(tmp_path / "python3",))
        with pytest.raises(InterpreterMissingError, match="install its package python3"):
            await none.find("system", shop.own_room)


async def test_a_pip_that_knows_no_netrc_variable_finds_the_file_at_home(tmp_path: Path) -> None:
    own, credentials = tmp_path / "own", tmp_path / "index.netrc"
    (own / ".config").mkdir(parents=True)
    credentials.write_text("machine h login u password p\n")
    async with open_workshop(tmp_path) as shop:
        given = {"HOME": str(own), "PATH": "/bin"}
        assert shop.packages.pip_variables(given) == given
        for _ in range(2):
            found = shop.packages.pip_variables({**given, "NETRC": str(credentials)})
            home = Path(found["HOME"])
            assert (home / ".netrc").read_text() == credentials.read_text()
            assert (home / ".config").samefile(own / ".config")

"""What the benches of a node share."""

from dataclasses import dataclass

from edge_agent.bundles.prefetch import Prefetch
from edge_agent.content_cache import ContentCache
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.file_inputs import FileInputs
from edge_agent.folder_inputs import FolderInputs
from edge_agent.kept_folders import KeptFolders
from edge_agent.long_work import LongWork
from edge_agent.sandbox.planning import SandboxPlanning
from edge_agent.secrets.secret_folders import SecretFolders
from edge_agent.spare_folders import SpareFolders
from edge_agent.start_outlines import StartOutlines
from edge_agent.trash import Trash
from edge_agent.uploads.uploader import Uploader


@dataclass(frozen=True, slots=True)
class WorkshopTools:
    """The tools of a workshop; each bench uses them for its attempt.

    Args:
        starts: says what the starts of a job's attempts have alike.
        bundles: what is fetched by its digest and laid out.
        prefetch: brings bundles there before they are needed.
        inputs: file inputs.
        folders: folder inputs.
        environments: what is built, and found built.
        uploader: stores artifacts.
        work: does what takes long.
        trash: takes what is to go.
        spares: takes folders that can be used again, and gives them.
        kept: takes what is to be kept for people.
        secrets: hands secrets over as files.
        sandbox: makes the doors of attempts.
    """

    starts: StartOutlines
    bundles: ContentCache
    prefetch: Prefetch
    inputs: FileInputs
    folders: FolderInputs
    environments: EnvironmentCache
    uploader: Uploader
    work: LongWork
    trash: Trash
    spares: SpareFolders
    kept: KeptFolders
    secrets: SecretFolders
    sandbox: SandboxPlanning

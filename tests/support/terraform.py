"""A copy of the repository whose tf/ can be tested by mock providers.

Mock providers, and the stand-in that TERRAFORM_RUNNER may name, have no ephemeral resources. In the
copy the token comes from the data source of the same name instead; nothing else differs.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

EPHEMERAL = 'ephemeral "google_client_config" "this" {}'
MOCKABLE = 'data "google_client_config" "this" {}'


def copy(into: Path) -> Path:
    """Copy what git knows of the repository, with a mockable tf/; return the copy's tf/."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    for file in (into / "tf").glob("*.tf"):
        text = file.read_text()
        file.write_text(
            text.replace(EPHEMERAL, MOCKABLE).replace("= ephemeral.google_", "= data.google_")
        )
    subprocess.run(
        ["git", "init", "--quiet"], cwd=into, check=True
    )  # by which a runner finds the root
    return into / "tf"


if __name__ == "__main__":
    copy(Path(sys.argv[1]))

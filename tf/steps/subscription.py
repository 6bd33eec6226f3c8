"""Set what a trigger's subscription needs, and no other of its fields.

DCM2BQ_SUBSCRIPTION names the subscription in full, DCM2BQ_SETTINGS holds the fields as JSON.
"""

from __future__ import annotations

import json
import os

from google_api import RefusedError, call, endpoint, stop_for


def main() -> None:
    """Patch the fields of the settings; doing so again changes nothing."""
    name = os.environ["DCM2BQ_SUBSCRIPTION"]
    settings = json.loads(os.environ["DCM2BQ_SETTINGS"])
    base = endpoint("GOOGLE_PUBSUB_CUSTOM_ENDPOINT", "https://pubsub.googleapis.com/v1/")
    mask = ",".join(sorted(settings))
    body = {"subscription": {"name": name, **settings}, "updateMask": mask}
    try:
        call("PATCH", f"{base}/{name}", body)
    except RefusedError as refused:
        stop_for(
            f"the subscription {name} was not changed",
            refused,
            {
                403: "Whoever applies needs roles/pubsub.editor on the project: "
                "grant it, then run terraform apply again.",
                404: "Its trigger may have been replaced: run terraform apply again. If that does "
                "not help, replace the trigger: terraform apply -replace=ADDRESS.",
            },
        )
    print(f"{name}: set {mask}")


if __name__ == "__main__":
    main()

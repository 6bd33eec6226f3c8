"""Terraform and Python label the tables alike; tf/tests/privacy.tftest.hcl has the other side."""

import json
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import config

VECTORS = json.loads(Path(__file__).with_name("privacy.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["fingerprint"])
def test_the_fingerprint_is_that_of_terraform(vector: dict[str, Any]) -> None:
    options = config.from_overrides({"privacy": vector["python"]}).privacy
    assert options.fingerprint == vector["fingerprint"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["fingerprint"])
def test_the_vectors_say_the_same_in_both_languages(vector: dict[str, Any]) -> None:
    names = {"shift_days": "shiftDays", "kept_descriptors": "keptDescriptors"}
    terraform = {names.get(name, name): value for name, value in vector["terraform"].items()}
    key = terraform.pop("hash_key", None)
    assert vector["python"] == terraform | ({"keyVersion": key["version"]} if key else {})

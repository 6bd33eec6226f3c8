# Has the archive that Terraform uploads compared, file for file, with what .gcloudignore leaves, by
# the Python that DCM2BQ_PYTHON names: `make check` names that of .venv, which has what it takes.

variable "archive" {
  type = string
}

resource "terraform_data" "comparison" {
  provisioner "local-exec" {
    command = "\"$${DCM2BQ_PYTHON:-python3}\" ../tests/support/upload.py ${var.archive}"
  }
}

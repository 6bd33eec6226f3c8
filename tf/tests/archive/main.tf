# Has the archive that Terraform uploads compared, file for file, with what .gcloudignore leaves.

variable "archive" {
  type = string
}

resource "terraform_data" "comparison" {
  provisioner "local-exec" {
    command = "\"$${DCM2BQ_PYTHON:-python3}\" ../tests/support/upload.py ${var.archive}"
  }
}

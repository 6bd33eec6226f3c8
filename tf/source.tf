# The files of the function: the same that .gcloudignore leaves for gcloud. tests/deploy compares both.
locals {
  source_root    = "${path.module}/.."
  source_files   = ["main.py", "requirements.txt", ".python-version", "dcm2bq/**"]
  source_without = "^dcm2bq/(cli|local|schema|tools)/|(^|/)__pycache__/|\\.pyc$"
  release        = regex("__version__ = \"(.+)\"", file("${local.source_root}/dcm2bq/__init__.py"))[0]

  # Where the archive is uploaded to, and where Cloud Functions copies it to for a build.
  build_buckets = [
    google_storage_bucket.source.name,
    "gcf-v2-sources-${data.google_project.this.number}-${var.region}",
  ]

  source = toset([
    for file in flatten([for glob in local.source_files : tolist(fileset(local.source_root, glob))]) :
    file if !can(regex(local.source_without, file))
  ])
}

# The archive is made of the files' contents, so that dates and permissions of a checkout do not matter.
data "archive_file" "source" {
  type        = "zip"
  output_path = "${path.module}/build/source.zip"

  dynamic "source" {
    for_each = local.source

    content {
      filename = source.value
      content  = file("${local.source_root}/${source.value}")
    }
  }
}

resource "google_storage_bucket" "source" {
  #checkov:skip=CKV_GCP_62: it holds nothing but published source code
  #checkov:skip=CKV_GCP_78: objects are named by their content, so that none is ever overwritten
  project                     = var.project_id
  name                        = join("-", compact([replace(var.project_id, "/[.:]/", "-"), "dcm2bq", "source", var.suffix]))
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # What a function was built from is also in version control and in its image.
  force_destroy = true

  versioning {
    enabled = false
  }

  dynamic "encryption" {
    for_each = local.kms_key

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "${data.archive_file.source.output_sha256}.zip"
  source = data.archive_file.source.output_path
}

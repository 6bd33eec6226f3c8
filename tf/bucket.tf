resource "google_storage_bucket" "dicom" {
  #checkov:skip=CKV_GCP_62: Cloud Audit Logs tell who read an object, and are switched on for the project
  #checkov:skip=CKV_GCP_78: whether deleted objects are kept is for the owner to say: bucket.versioning
  count = var.bucket.existing ? 0 : 1

  project                     = var.project_id
  name                        = coalesce(var.bucket.name, join("-", compact([replace(var.project_id, "/[.:]/", "-"), "dicom", var.suffix])))
  location                    = coalesce(var.bucket.location, var.region, "US")
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = var.bucket.versioning
  }

  dynamic "encryption" {
    for_each = local.kms_key

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

data "google_storage_bucket" "existing" {
  count = var.bucket.existing ? 1 : 0

  name = var.bucket.name
}

locals {
  bucket          = one(concat(google_storage_bucket.dicom[*].name, data.google_storage_bucket.existing[*].name))
  bucket_location = lower(one(concat(google_storage_bucket.dicom[*].location, data.google_storage_bucket.existing[*].location)))

  # Of an existing bucket; a new one is in order by being made here.
  bucket_project = try(data.google_storage_bucket.existing[0].project_number, data.google_project.this.number)
  can_rename     = anytrue(flatten(data.google_storage_bucket.existing[*].hierarchical_namespace[*].enabled))
}
